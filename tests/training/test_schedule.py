"""The learning rate, value by value over whole runs, against the official schedulers' formulas."""

import math
import warnings

import numpy as np
import pytest
import torch

from mindspore_gpt4image.training.schedule import learning_rate, scaled_lr

SETTINGS = {"steps_per_epoch": 10, "epochs": 20, "peak": 0.4, "warmup_epochs": 5, "warmup_lr": 0.1, "min_lr": 0.02}


def all_rates(**settings):
    return [learning_rate(step, **settings) for step in range(settings["epochs"] * settings["steps_per_epoch"])]


def timm_cosine(epoch, epochs, peak, min_lr, warmup_epochs, warmup_lr):
    """timm's CosineLRScheduler for one cycle: t_initial=epochs, t_in_epochs, warmup_prefix=False, as DeiT calls it."""
    if epoch < warmup_epochs:
        return warmup_lr + epoch * (peak - warmup_lr) / warmup_epochs
    return min_lr + 0.5 * (peak - min_lr) * (1 + math.cos(math.pi * epoch / epochs))


def convnext_cosine(peak, min_lr, epochs, steps_per_epoch, warmup_epochs, warmup_lr=0):
    """ConvNeXt's utils.cosine_scheduler: values of all steps."""
    warmup_steps = warmup_epochs * steps_per_epoch
    warmup = np.linspace(warmup_lr, peak, warmup_steps) if warmup_epochs > 0 else np.array([])
    left = epochs * steps_per_epoch - warmup_steps
    cosine = min_lr + 0.5 * (peak - min_lr) * (1 + np.cos(np.pi * np.arange(left) / left))
    return np.concatenate([warmup, cosine])


@pytest.mark.parametrize("epochs", [300, 6])
def test_deit(epochs):
    """8 x 128 images: 5e-4 per 512; warm-up and minimum are not scaled."""
    peak = scaled_lr(5e-4, 1024, 512)
    rates = all_rates(
        steps_per_epoch=7, epochs=epochs, peak=peak, warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5, by="epoch"
    )
    expected = [timm_cosine(epoch, epochs, 1e-3, 1e-5, 5, 1e-6) for epoch in range(epochs) for _ in range(7)]
    np.testing.assert_allclose(rates, expected, rtol=1e-11)


@pytest.mark.parametrize(("epochs", "warmup_epochs"), [(300, 20), (40, 20), (3, 0)])
def test_convnext(epochs, warmup_epochs):
    """32 x 128 images of ImageNet: 312 steps an epoch."""
    rates = all_rates(steps_per_epoch=312, epochs=epochs, peak=4e-3, warmup_epochs=warmup_epochs, min_lr=1e-6)
    np.testing.assert_allclose(rates, convnext_cosine(4e-3, 1e-6, epochs, 312, warmup_epochs), rtol=1e-11)


def test_resnet():
    """The authors' script: PyTorch's CosineAnnealingLR to 1e-5, once an epoch, from 0.1 per 256 on 4 x 256 images."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120, eta_min=1e-5)
    expected = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scheduler asks for optimizer steps in between
        for _ in range(120):
            expected += 3 * [optimizer.param_groups[0]["lr"]]
            scheduler.step()
    rates = all_rates(
        steps_per_epoch=3, epochs=120, peak=scaled_lr(0.1, 1024, 256), warmup_epochs=0, min_lr=1e-5, by="epoch"
    )
    np.testing.assert_allclose(rates, expected, rtol=1e-9)  # PyTorch's is a recurrence, which gathers rounding errors


def test_the_warmup_ends_at_the_peak():
    rates = all_rates(**SETTINGS)
    assert rates[0] == 0.1
    assert rates[49] == rates[50] == max(rates) == 0.4


def test_no_warmup_starts_at_the_peak_and_ends_at_the_minimum():
    settings = {**SETTINGS, "warmup_epochs": 0}
    assert learning_rate(0, **settings) == pytest.approx(0.4)
    assert learning_rate(200, **settings) == pytest.approx(0.02)


@pytest.mark.parametrize("by", ["step", "epoch"])
def test_a_run_that_is_all_warmup_works(by):
    rates = all_rates(**{**SETTINGS, "epochs": 5, "by": by})
    assert rates[0] == 0.1
    assert rates[-1] == pytest.approx(0.4 if by == "step" else 0.34)


@pytest.mark.parametrize("warmup_epochs", [0.05, 0.1, 0.33])
def test_a_warmup_of_a_part_of_an_epoch(warmup_epochs):
    rates = all_rates(**{**SETTINGS, "warmup_epochs": warmup_epochs})
    assert np.isfinite(rates).all()
    assert rates[round(10 * warmup_epochs)] == 0.4


def test_linear_scaling():
    assert scaled_lr(0.1, 1024, 256) == pytest.approx(0.4)
    assert scaled_lr(0.1, 1024, None) == 0.1
