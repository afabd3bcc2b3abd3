"""Stochastic depth whose masks repeat when a run resumes."""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype


class DropPath(nn.Cell):
    """Draw which residual branches of which images are kept (Huang et al., "Deep Networks with Stochastic Depth").

    The rate grows linearly from 0 in the first block to `rate` in the last. A branch is scaled by 0 where it is dropped
    and by 1 / (1 - its rate) where it is kept, so that its expectation stays.

    Random operators inside a graph restart at their first draw when a run resumes. Here nothing is drawn: a number is a
    hash of (seed, step, branch, row of the batch). The training step must therefore write `state` before each forward,
    `ops.assign(net.drop_path.state, …)`; ranks need seeds of their own.

    Args:
        rate: the last block's rate, in [0, 1).
        blocks: number of blocks.
        branches: residual branches a block.

    Attributes:
        state: int32 [2], not trainable: (seed, step).

    Outputs:
        float32 [blocks, branches, B].
    """

    def __init__(self, rate: float, blocks: int, branches: int):
        super().__init__()
        self.state = Parameter(Tensor([0, 0], mstype.int32), name="state", requires_grad=False)
        self.blocks, self.branches = blocks, branches
        self.rate = Tensor(np.linspace(0, rate, blocks).reshape(blocks, 1, 1), mstype.float32)

    def construct(self, batch_size: int) -> Tensor:
        count = self.blocks * self.branches * batch_size
        key = _mix(_mix(self.state[0]) + self.state[1])
        bits = _mix(_mix(ops.arange(0, count, 1, dtype=mstype.int32)) + key)
        # The upper 24 bits are what a float32 holds exactly.
        uniform = (_shift_right(bits, 8)).astype(mstype.float32) / 2**24
        kept = uniform.reshape((self.blocks, self.branches, batch_size)) >= self.rate
        return kept.astype(mstype.float32) / (1 - self.rate)


def residual(x: Tensor, branch: Tensor, scale: Tensor) -> Tensor:
    """x + scale * branch, row by row; `scale` is [B], or None where nothing is dropped."""
    if scale is None:
        return x + branch
    return x + branch * scale.reshape((-1,) + (1,) * (branch.ndim - 1)).astype(branch.dtype)


def _mix(bits: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 (Appleby) on int32, which wraps as its uint32 does."""
    bits = ops.bitwise_xor(bits, _shift_right(bits, 16)) * Tensor(0x85EBCA6B - 2**32, mstype.int32)
    bits = ops.bitwise_xor(bits, _shift_right(bits, 13)) * Tensor(0xC2B2AE35 - 2**32, mstype.int32)
    return ops.bitwise_xor(bits, _shift_right(bits, 16))


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical shift: int32's own copies the sign into the upper bits, so they are cleared."""
    return ops.bitwise_and(ops.bitwise_right_shift(bits, count), 2 ** (32 - count) - 1)
