import math

import numpy as np
import pytest
from scipy import stats

from mindspore_gpt4image.statistics import (
    bootstrap_over_images,
    detectable_difference,
    mcnemar,
    mean_and_deviation,
    paired_difference,
)


def test_mean_and_deviation_by_hand():
    """2, 4, 6: mean 4, squares of the distances 4 + 0 + 4, divided by 2."""
    assert mean_and_deviation([2, 4, 6]) == (4.0, 2.0)
    assert mean_and_deviation([5]) == (5.0, None)


def test_paired_difference_by_hand():
    """Differences 1, 2, 3 over the seeds in common: mean 2, deviation 1, and t(0.975; 2) = 4.3027 from tables."""
    found = paired_difference({0: 10.0, 1: 20.0, 2: 30.0, 8: 99.0}, {2: 33.0, 1: 22.0, 0: 11.0, 9: 1.0})
    half = 4.302653 / math.sqrt(3)
    assert (found.seeds, found.mean, found.deviation) == (3, 2.0, 1.0)
    assert found.interval == pytest.approx((2 - half, 2 + half), rel=1e-6)
    assert found.outcome == "none"


def test_interval_and_outcome_agree_with_scipys_paired_t_test():
    random = np.random.default_rng(1)
    outcomes = set()
    for shift in (-1.5, -0.6, 0.0, 0.6, 1.5):
        first, second = random.normal(50, 1, 6), random.normal(50 + shift, 1, 6)
        found = paired_difference(dict(enumerate(first)), dict(enumerate(second)))
        test = stats.ttest_rel(second, first)
        assert found.interval == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
        significant = ("better" if found.mean > 0 else "worse") if test.pvalue < 0.05 else "none"
        assert found.outcome == significant
        outcomes.add(found.outcome)
    assert outcomes == {"better", "worse", "none"}


def test_no_common_seed_has_no_difference():
    assert paired_difference({0: 1.0}, {1: 2.0}) is None


def test_one_seed_gives_neither_deviation_nor_verdict():
    found = paired_difference({0: 40.0}, {0: 45.0})
    assert (found.mean, found.deviation, found.interval, found.detectable) == (5.0, None, None, None)
    assert found.outcome == "undecided"
    assert found.sentence("a", "b") == (
        "No verdict: one seed cannot tell an effect from chance; b minus a is +5.00 points."
    )


def test_equal_differences_give_no_verdict():
    """A t interval of no width would call every such difference certain; 0.1 + 0.5 is inexact on purpose."""
    found = paired_difference({0: 0.1, 1: 0.2}, {0: 0.1 + 0.5, 1: 0.2 + 0.5})
    assert (0.1 + 0.5) - 0.1 != (0.2 + 0.5) - 0.2
    assert found.outcome == "undecided"
    assert found.sentence("a", "b") == (
        "No verdict: b minus a is +0.50 points in each of the 2 seeds, so chance cannot be estimated."
    )


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (
            {0: 11.0, 1: 12.0, 2: 11.5},
            "Better: b minus a is +1.50 points (95% interval over 3 seeds: +0.26 to +2.74).",
        ),
        (
            {0: 9.0, 1: 8.0, 2: 8.5},
            "Worse: b minus a is -1.50 points (95% interval over 3 seeds: -2.74 to -0.26).",
        ),
        (
            {0: 11.0, 1: 9.0, 2: 10.0},
            "No difference measurable: b minus a is +0.00 points (95% interval over 3 seeds: -2.48 to +2.48); a true "
            "difference of 3.26 points would have been seen with a probability of 80%.",
        ),
    ],
)
def test_one_of_three_sentences(second, sentence):
    """Differences m - 0.5, m, m + 0.5 have deviation 0.5, so the interval is m ± 4.3027 · 0.5 / sqrt(3) = m ± 1.24."""
    assert paired_difference({0: 10.0, 1: 10.0, 2: 10.0}, second).sentence("a", "b") == sentence


@pytest.mark.parametrize("seeds", [2, 3, 5, 30])
def test_detectable_difference_is_seen_in_four_of_five_experiments(seeds):
    """Draw 40,000 experiments with exactly that true difference and count what a paired t test calls better."""
    deviation = 1.7
    true = detectable_difference(deviation, seeds)
    samples = np.random.default_rng(seeds).normal(true, deviation, (40_000, seeds))
    seen = stats.ttest_1samp(samples, 0, axis=1)
    assert np.mean((seen.pvalue < 0.05) & (seen.statistic > 0)) == pytest.approx(0.8, abs=0.01)


def test_detectable_difference_of_many_seeds_is_the_normal_formula():
    """(z(0.975) + z(0.8)) · deviation / sqrt(n) = (1.95996 + 0.84162) / sqrt(n)."""
    assert detectable_difference(1.0, 5000) == pytest.approx(2.80158 / math.sqrt(5000), rel=1e-3)


def test_bootstrap_over_images_is_the_normal_interval_where_images_are_many():
    """Per image the difference has a known deviation s: the interval is mean ± 1.96 s / sqrt(n), with n = 4,000."""
    random = np.random.default_rng(2)
    first, second = random.random((3, 4000)) < 0.5, random.random((3, 4000)) < 0.55
    difference = 100 * (second.mean(axis=0) - first.mean(axis=0))
    half = 1.95996 * difference.std() / math.sqrt(4000)
    expected = difference.mean() - half, difference.mean() + half
    assert bootstrap_over_images(first, second) == pytest.approx(expected, abs=0.1)


def test_bootstrap_keeps_images_paired():
    """Arms that err on the same images differ by nothing, however the images are drawn."""
    right = np.random.default_rng(3).random((2, 50)) < 0.5
    assert bootstrap_over_images(right, right) == (0.0, 0.0)


def test_mcnemar_is_a_coin_thrown_once_a_disagreement():
    """8 disagreements, 7 for the second: two-sided (1 + 8) * 2 / 2^8; never disagreeing says nothing."""
    first = np.array([True] * 5 + [True] + [False] * 7 + [False] * 3)
    second = np.array([True] * 5 + [False] + [True] * 7 + [False] * 3)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (1, 7)
    assert found.p == pytest.approx(18 / 256)
    assert mcnemar(first, first).p == 1.0
