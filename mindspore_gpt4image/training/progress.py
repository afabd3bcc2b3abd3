"""Where training stands, and what was measured so far: the part of a run that is not weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Optional

import numpy as np


@dataclass
class Progress:
    """All of it is saved in `last.ckpt`, beside weights and moments.

    Attributes:
        config: the experiment, as nested dictionaries.
        train_images: how many there are.
        world_size: number of ranks.
        texts: `encoder`, `text` and `descriptions_sha256` of the store that is aligned with; None for a baseline.
        epoch, step: whole epochs done, and steps done in the present one.
        sums: over the present epoch: cross-entropy and alignment of the steps taken, right answers, steps taken.
        skipped: steps of the present epoch that were not taken, since their gradient was not finite.
        skipped_in_a_row: such steps since the last good one.
        looks: `diagnostics.totals` of the present epoch, added up.
        last_losses: cross-entropy and alignment of the last good step.
        broken: positions of training images that could not be decoded and are left out, on any rank.
        best_top1, best_epoch: of the validation split.
        seconds, train_seconds: wall time of all, and of the present epoch's steps.
    """

    config: dict[str, Any]
    train_images: int
    world_size: int
    texts: Optional[dict[str, str]] = None
    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    looks: list[float] = field(default_factory=lambda: [0.0] * 6)
    skipped: int = 0
    skipped_in_a_row: int = 0
    last_losses: list[float] = field(default_factory=lambda: [0.0] * 2)
    broken: list[int] = field(default_factory=list)
    best_top1: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0

    def add_step(self, result: np.ndarray, seconds: float) -> None:
        """Count one step by what `TrainStep` returned, the mean over its micro-batches (but `taken` is the last's)."""
        ce, align, correct, taken, _ = (float(value) for value in result)
        self.step += 1
        self.seconds += seconds
        self.train_seconds += seconds
        if taken:
            self.sums = [total + value for total, value in zip(self.sums, (ce, align, correct, 1.0))]
            self.last_losses, self.skipped_in_a_row = [ce, align], 0
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1

    def add_look(self, totals: np.ndarray) -> None:
        """Count what `Diagnostics` saw once."""
        self.looks = [total + float(value) for total, value in zip(self.looks, totals)]

    def means(self, batch_size: int) -> dict[str, float]:
        """Cross-entropy, alignment and top-1 (percent) over the steps taken in the present epoch.

        `batch_size` is that of a rank.
        """
        ce, align, correct, taken = self.sums
        steps = max(taken, 1.0)
        return {"ce": ce / steps, "align": align / steps, "top1": 100.0 * correct / (steps * batch_size)}

    def next_epoch(self) -> None:
        """Start counting the next epoch."""
        self.epoch += 1
        self.step, self.skipped, self.train_seconds = 0, 0, 0.0
        self.sums, self.looks = [0.0] * 4, [0.0] * 6

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
