"""What `tools/benchmark.py scaling` measures. Nothing is judged by its speed here."""

import numpy as np
import pytest

from mindspore_gpt4image.benchmark import scaling


def test_efficiencies_by_hand(monkeypatch):
    """Aligned 10 ms alone and 20 together: 0.5; baseline 10 and 16: 0.625; their ratio is 0.8."""
    turns = []

    def measure(ranks, runs):
        turns.append(ranks)
        return np.array([[10.0] * runs, [10.0] * runs] if ranks == 1 else [[20.0] * runs, [16.0] * runs])

    monkeypatch.setattr(scaling, "measure", measure)
    aligned, baseline, ratio = scaling.comparisons(quick=False)
    assert turns == [1, 2, 2, 1, 1, 2, 2, 1]
    assert (aligned.ratio, baseline.ratio, ratio.ratio) == (0.5, 0.625, 0.8)
    assert (aligned.ours, aligned.peer, aligned.unit, aligned.better) == (10, 20, "ms", "higher")
    assert (ratio.goal, ratio.better, ratio.runs, ratio.is_met) == (0.98, "higher", 60, False)


@pytest.mark.slow
def test_two_ranks_are_really_measured():
    times = scaling.measure(ranks=2, runs=2)
    assert times.shape == (2, 2)
    assert (times > 0).all()
