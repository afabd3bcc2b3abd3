"""The learning rate, value by value against the formula."""

import math

import pytest

from mindspore_gpt4image.training.schedule import learning_rate, scaled_lr

SETTINGS = {"steps_per_epoch": 10, "epochs": 20, "peak": 0.4, "warmup_epochs": 5, "warmup_lr": 0.1, "min_lr": 0.02}


def test_by_step():
    for step in range(200):
        cosine = 0.02 + 0.38 * (1 + math.cos(math.pi * (step - 50) / 150)) / 2
        expected = 0.1 + 0.3 * step / 50 if step < 50 else cosine
        assert learning_rate(step, **SETTINGS) == pytest.approx(expected, rel=1e-12)


def test_by_epoch_is_constant_within_an_epoch():
    for step in range(200):
        epoch = step // 10
        cosine = 0.02 + 0.38 * (1 + math.cos(math.pi * (epoch - 5) / 15)) / 2
        expected = 0.1 + 0.3 * epoch / 5 if epoch < 5 else cosine
        assert learning_rate(step, **SETTINGS, by="epoch") == pytest.approx(expected, rel=1e-12)


def test_no_warmup_starts_at_the_peak_and_ends_at_the_minimum():
    settings = {**SETTINGS, "warmup_epochs": 0}
    assert learning_rate(0, **settings) == pytest.approx(0.4)
    assert learning_rate(200, **settings) == pytest.approx(0.02)


def test_a_run_that_is_all_warmup_works():
    settings = {**SETTINGS, "epochs": 5}
    assert learning_rate(49, **settings) == pytest.approx(0.1 + 0.3 * 49 / 50)


def test_linear_scaling():
    assert scaled_lr(0.1, 1024, 256) == pytest.approx(0.4)
    assert scaled_lr(0.1, 1024, None) == 0.1
