"""Do two arms of a comparison differ? Paired differences over seeds, intervals, and what would have been seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from scipy import optimize, stats

CONFIDENCE = 0.95
POWER = 0.8
RESAMPLES = 9999


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample deviation (n - 1 in the denominator); no deviation of a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class PairedDifference:
    """The second arm minus the first, seed by seed, in the unit of the values.

    Attributes:
        seeds: number of seeds that both arms have.
        mean: mean difference.
        deviation: sample deviation of the differences; None with one seed.
        interval: t interval of the mean at 95%; None with one seed.
        detectable: the smallest true difference that these seeds would show at 5% with a probability of 80%; None with
            one seed.
    """

    seeds: int
    mean: float
    deviation: Optional[float]
    interval: Optional[tuple[float, float]]
    detectable: Optional[float]

    @property
    def outcome(self) -> str:
        """`better`, `worse`, `none` (no difference measurable), or `undecided`: the seeds say nothing of chance.

        They say nothing where there is one, or where all differ by the very same amount.
        """
        if not self.deviation:
            return "undecided"
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "none"

    def sentence(self, first: str, second: str) -> str:
        """The outcome in words, for values in percent; `first` and `second` name the arms."""
        difference = f"{second} minus {first} is {self.mean:+.2f} points"
        if self.seeds == 1:
            return f"No verdict: one seed cannot tell an effect from chance; {difference}."
        if not self.deviation:
            return f"No verdict: {difference} in each of the {self.seeds} seeds, so chance cannot be estimated."
        difference += f" (95% interval over {self.seeds} seeds: {self.interval[0]:+.2f} to {self.interval[1]:+.2f})"
        if self.outcome == "none":
            return (
                f"No difference measurable: {difference}; a true difference of {self.detectable:.2f} points would have "
                "been seen with a probability of 80%."
            )
        return f"{self.outcome.capitalize()}: {difference}."


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> PairedDifference | None:
    """Second minus first over the seeds they share; None if they share none.

    Args:
        first: the arm's value by seed, and so `second`.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    values = [second[seed] - first[seed] for seed in common]
    mean, deviation = mean_and_deviation(values)
    if deviation is None:
        return PairedDifference(1, mean, None, None, None)
    # Accuracies are quotients: equal differences may still differ in their last bits.
    deviation = 0.0 if deviation < 1e-9 else deviation
    half = critical_t(len(values)) * deviation / math.sqrt(len(values))
    interval = mean - half, mean + half
    return PairedDifference(len(values), mean, deviation, interval, detectable_difference(deviation, len(values)))


def critical_t(seeds: int) -> float:
    """The quantile of Student's t that a two-sided paired test at 5% needs."""
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, seeds - 1))


def detectable_difference(deviation: float, seeds: int) -> float:
    """The true difference that a paired t test at 5% finds with a probability of 80%.

    With a true difference d the statistic follows the noncentral t of noncentrality d / (deviation / sqrt(seeds)).

    Args:
        deviation: of the differences, taken for the true one.
        seeds: at least 2.
    """

    def missing_power(shift: float) -> float:
        return float(stats.nct.sf(critical_t(seeds), seeds - 1, shift)) - POWER

    # With two seeds, the worst case, a noncentrality of 16.3 is needed.
    return optimize.brentq(missing_power, 0, 20) * deviation / math.sqrt(seeds)


def bootstrap_over_images(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of the difference in accuracy, in points: images are resampled, runs are kept.

    Args:
        first: whether each image was classified rightly, bool [runs, images]; the same images in `second`.
    """
    differences = 100.0 * (second.mean(axis=0) - first.mean(axis=0))
    result = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 10_000_000 // len(differences)),
        confidence_level=CONFIDENCE,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same images: do they differ by more than which images they were shown?

    Attributes:
        only_first, only_second: images that one alone classifies rightly.
        p: exact two-sided probability of so uneven a split if either were as likely; 1 where they never disagree.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """The exact test of McNemar (1947) on whether each image was classified rightly, bool [images]."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disagree = only_first + only_second
    p = float(stats.binomtest(only_second, disagree).pvalue) if disagree else 1.0
    return McNemar(only_first, only_second, p)
