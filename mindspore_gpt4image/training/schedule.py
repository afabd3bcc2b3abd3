"""The learning rate over time."""

from __future__ import annotations

import math


def learning_rate(
    step: int,
    *,
    steps_per_epoch: int,
    epochs: int,
    peak: float,
    warmup_epochs: float = 0.0,
    warmup_lr: float = 0.0,
    min_lr: float = 0.0,
    by: str = "step",
) -> float:
    """Learning rate of the optimizer step `step`, counted from 0: linear warm-up, then half a cosine.

    Warm-up: warmup_lr + (peak - warmup_lr) · t / w; then min_lr + (peak - min_lr) · (1 + cos(pi · t / T)) / 2, where t
    is the time since the start (warm-up) or since the warm-up's end (cosine), w the length of the warm-up and T that of
    the rest, in steps or (by="epoch") in whole epochs.
    """
    unit = 1 if by == "step" else steps_per_epoch
    time = step // unit
    warmup, total = warmup_epochs * steps_per_epoch / unit, epochs * steps_per_epoch / unit
    if time < warmup:
        return warmup_lr + (peak - warmup_lr) * time / warmup
    return min_lr + (peak - min_lr) * (1 + math.cos(math.pi * (time - warmup) / (total - warmup))) / 2


def scaled_lr(lr: float, global_batch: int, reference_batch: int | None) -> float:
    """The linear scaling rule: lr · global batch / reference batch, or lr itself where there is no reference."""
    return lr if reference_batch is None else lr * global_batch / reference_batch
