"""Random numbers that repeat when a run resumes.

Random operators inside a graph restart at their first draw in a new process. Here nothing is drawn: a number is a hash
of (seed, step, stream, index), so it depends on nothing but these.
"""

from mindspore import Tensor, ops
from mindspore import dtype as mstype

# Every use has a stream of its own, or the same step would give it the numbers of another.
DROP_PATH, ERASING = 0, 1


def uniform(state: Tensor, stream: int, count: int) -> Tensor:
    """float32 [count], uniform on [0, 1) in steps of 2^-24.

    Args:
        state: int32 [2], (seed, step).
    """
    key = _mix(_mix(_mix(state[0]) + state[1]) + stream)
    bits = _mix(_mix(ops.arange(0, count, 1, dtype=mstype.int32)) + key)
    # The upper 24 bits are what a float32 holds exactly.
    return _shift_right(bits, 8).astype(mstype.float32) / 2**24


def _mix(bits: Tensor) -> Tensor:
    """The finaliser of MurmurHash3 (Appleby) on int32, which wraps as its uint32 does."""
    bits = ops.bitwise_xor(bits, _shift_right(bits, 16)) * Tensor(0x85EBCA6B - 2**32, mstype.int32)
    bits = ops.bitwise_xor(bits, _shift_right(bits, 13)) * Tensor(0xC2B2AE35 - 2**32, mstype.int32)
    return ops.bitwise_xor(bits, _shift_right(bits, 16))


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical shift: int32's own copies the sign into the upper bits, so they are cleared."""
    return ops.bitwise_and(ops.bitwise_right_shift(bits, count), 2 ** (32 - count) - 1)
