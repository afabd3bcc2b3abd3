"""Ranks and collectives: the few facts about the world that losses, data, evaluation and the loop share."""

from __future__ import annotations

import functools
import itertools
import os
import socket
import time
from collections.abc import Collection, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, communication, nn, ops
from mindspore.mint.distributed import TCPStore

from mindspore_gpt4image.cluster import free_port
from mindspore_gpt4image.device import use_device

_SECONDS_BETWEEN_LOOKS = 0.05


def join_world(device: str) -> None:
    """Become a rank of the group whose launcher started this process; the scheduler's process ends in here.

    To be called before anything is built or written.
    """
    use_device(device)
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True)
    communication.init()
    if device == "CPU" and world_size() > 1:
        _arrivals()


def is_initialized() -> bool:
    """Whether this process has joined a group of ranks (`mindspore.communication.init`)."""
    return communication.GlobalComm.INITED


def world_size() -> int:
    """Number of ranks R; 1 in a run of one process."""
    return communication.get_group_size() if is_initialized() else 1


def rank() -> int:
    """This process's rank, 0 … R - 1; 0 in a run of one process."""
    return communication.get_rank() if is_initialized() else 0


class _Collective(nn.Cell):
    """One collective as a graph of its own."""

    def __init__(self, operator: ops.Primitive):
        super().__init__()
        self.operator = operator

    def construct(self, x):
        return self.operator(x)


def _run(operator: ops.Primitive, array: np.ndarray) -> np.ndarray:
    return _Collective(operator)(Tensor(array)).asnumpy()


@functools.cache
def _arrivals() -> TCPStore:
    """Where ranks on CPU count who has come to a meeting; in rank 0's process."""
    port = int(_run(ops.AllReduce(), np.array([free_port() if rank() == 0 else 0], np.float32)).item())
    address = socket.gethostbyname(os.environ["MS_SCHED_HOST"])
    return TCPStore(address, port, is_master=rank() == 0, world_size=world_size(), wait_for_workers=False)


_meetings = itertools.count()


def _run_together(operator: ops.Primitive, array: np.ndarray) -> np.ndarray:
    """Run a collective once all ranks have come here, however long that takes.

    A collective of MindSpore's on CPU gives up after 30 s, and no setting changes that; those of GPU and Ascend are
    patient themselves. Rank 0, who counts, stays in the collective until all have stopped looking.
    """
    if ms.get_context("device_target") == "CPU":
        meeting = f"meeting {next(_meetings)}"
        arrived = _arrivals().add(meeting, 1)
        while arrived < world_size():
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            arrived = _arrivals().add(meeting, 0)
    return _run(operator, array)


def sum_over_ranks(array: np.ndarray) -> np.ndarray:
    """The sum over ranks of an array of one shape on all of them, in float32; the array itself in one process.

    Where each entry is nonzero on one rank only, this puts together what the ranks hold, exactly.
    """
    if world_size() == 1:
        return array
    return _run_together(ops.AllReduce(), array.astype(np.float32)).astype(array.dtype)


def on_any_rank(numbers: Collection[int], below: int) -> list[int]:
    """The whole numbers, from 0 to `below` - 1, that some rank has, sorted."""
    if world_size() == 1:
        return sorted(numbers)
    has = np.zeros(below, np.float32)
    has[list(numbers)] = 1
    return np.flatnonzero(sum_over_ranks(has)).tolist()


def texts_of_ranks(text: str, size: int) -> list[str]:
    """What each rank says: its `text`, of which the first `size` bytes of UTF-8 count, by rank.

    `size` is a multiple of 4 and the same on every rank.
    """
    if world_size() == 1:
        return [text]
    # CPU gathers whole numbers of 32 bits, and as many from every rank.
    numbers = np.frombuffer(text.encode()[:size].ljust(size, b"\0"), np.int32)
    gathered = _run_together(ops.AllGather(), numbers).reshape(world_size(), -1)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in gathered]


def wait_for_ranks() -> None:
    """Return when all ranks have come here, however late. CPU has no barrier, so they sum up nothing."""
    sum_over_ranks(np.zeros(1, np.float32))


def copy_from_rank_0(parameters: Sequence[Parameter]) -> None:
    """Overwrite float32 parameters by those of rank 0."""
    if world_size() == 1 or not parameters:
        return
    flat = np.concatenate([parameter.asnumpy().reshape(-1) for parameter in parameters])
    # A sum to which rank 0 alone contributes: one collective for all of them.
    flat = sum_over_ranks(flat if rank() == 0 else np.zeros_like(flat))
    parts = np.split(flat, np.cumsum([parameter.size for parameter in parameters])[:-1])
    for parameter, part in zip(parameters, parts):
        # Not by `set_data`, after which a compiled graph would go on with the old array.
        ops.assign(parameter, Tensor(part.reshape(parameter.shape), parameter.dtype))
