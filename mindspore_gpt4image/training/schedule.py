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

    by="step" is ConvNeXt's official schedule. The warm-up of w steps begins at warmup_lr and ends at the peak:
    warmup_lr + (peak - warmup_lr) · t / (w - 1); the cosine takes the T - w steps that are left:
    min_lr + (peak - min_lr) · (1 + cos(pi · (t - w) / (T - w))) / 2.

    by="epoch" is timm's CosineLRScheduler (DeiT) and, without warm-up, PyTorch's CosineAnnealingLR (the authors'
    ResNet). The rate changes with the epoch t alone, the cosine of t / T runs over the whole training, and the warm-up
    warmup_lr + (peak - warmup_lr) · t / w replaces its first w epochs. (DeiT's own loop sets each of these values one
    epoch late.)
    """

    def cosine(share: float) -> float:
        return min_lr + (peak - min_lr) * (1 + math.cos(math.pi * share)) / 2

    if by == "epoch":
        epoch = step // steps_per_epoch
        if epoch < warmup_epochs:
            return warmup_lr + (peak - warmup_lr) * epoch / warmup_epochs
        return cosine(epoch / epochs)
    warmup = round(warmup_epochs * steps_per_epoch)
    if step < warmup:
        return warmup_lr + (peak - warmup_lr) * step / max(warmup - 1, 1)
    return cosine((step - warmup) / (epochs * steps_per_epoch - warmup))


def scaled_lr(lr: float, global_batch: int, reference_batch: int | None) -> float:
    """The linear scaling rule: lr · global batch / reference batch, or lr itself where there is no reference."""
    return lr if reference_batch is None else lr * global_batch / reference_batch
