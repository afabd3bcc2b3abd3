"""Ranks and collectives: the few facts about the world that losses, data and the loop share."""

from mindspore import communication


def is_initialized() -> bool:
    """Whether this process has joined a group of ranks (`mindspore.communication.init`)."""
    return communication.GlobalComm.INITED


def world_size() -> int:
    """Number of ranks R; 1 in a run of one process."""
    return communication.get_group_size() if is_initialized() else 1


def rank() -> int:
    """This process's rank, 0 … R - 1; 0 in a run of one process."""
    return communication.get_rank() if is_initialized() else 0
