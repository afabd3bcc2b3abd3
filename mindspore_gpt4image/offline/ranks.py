"""Which share of the work is this process's, by the variables that torchrun and other launchers set."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mindspore_gpt4image.errors import UserError


@dataclass(frozen=True)
class Ranks:
    """This process among all that work on one data set; they never talk to each other.

    Attributes:
        rank: its number, from 0.
        world: how many there are, on all nodes.
        local: its number on its node, which is that of its device.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_environment(cls) -> Ranks:
        """By `RANK`, `WORLD_SIZE` and `LOCAL_RANK`; one process alone where they are not set.

        Raises:
            UserError: one of the first two is missing, or they are no numbers that fit together.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        values = {name: os.environ[name] for name in names if name in os.environ}
        told = " ".join(f"{name}={value}" for name, value in values.items())
        if "RANK" not in values and values.get("WORLD_SIZE", "1") == "1":
            return cls()
        try:
            rank, world = int(values["RANK"]), int(values["WORLD_SIZE"])
            local = int(values.get("LOCAL_RANK", 0))
        except (KeyError, ValueError) as error:
            raise UserError(f"{told}: RANK and WORLD_SIZE must both be numbers; use torchrun or unset them") from error
        if not (0 <= rank < world and local >= 0):
            raise UserError(f"{told}: RANK must lie below WORLD_SIZE; use torchrun or unset them")
        return cls(rank, world, local)
