"""Stochastic depth whose masks repeat when a run resumes."""

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype

from mindspore_gpt4image.models.hashing import DROP_PATH, uniform


class DropPath(nn.Cell):
    """Draw which residual branches of which images are kept (Huang et al., "Deep Networks with Stochastic Depth").

    The rate grows linearly from 0 in the first block to `rate` in the last. A branch is scaled by 0 where it is dropped
    and by 1 / (1 - its rate) where it is kept, so that its expectation stays.

    The numbers are hashes of (seed, step, branch, row of the batch), see `hashing`. The training step must therefore
    write `state` before each forward, `ops.assign(net.drop_path.state, …)`; ranks need seeds of their own.

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
        drawn = uniform(self.state, DROP_PATH, self.blocks * self.branches * batch_size)
        kept = drawn.reshape((self.blocks, self.branches, batch_size)) >= self.rate
        return kept.astype(mstype.float32) / (1 - self.rate)


def residual(x: Tensor, branch: Tensor, scale: Tensor) -> Tensor:
    """x + scale * branch, row by row; `scale` is [B], or None where nothing is dropped."""
    if scale is None:
        return x + branch
    return x + branch * scale.reshape((-1,) + (1,) * (branch.ndim - 1)).astype(branch.dtype)
