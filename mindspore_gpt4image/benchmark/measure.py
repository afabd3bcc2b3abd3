"""Measuring two things in turns, and what their ratio is worth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np

RESAMPLES = 9999


@dataclass(frozen=True)
class Comparison:
    """One row of a benchmark, with the keys of its JSON.

    Attributes:
        name: what was compared with what, and at which size.
        ratio: median over the runs of ours / peer, or as the row's name says.
        interval: 95% bootstrap interval of it.
        goal: what the ratio should be at most (or at least, by `better`); None where it is only reported.
        better: "lower" or "higher".
        ours: median of our measurements, in `unit`; `peer` likewise.
        runs: pairs of measurements.
    """

    name: str
    ratio: float
    interval: tuple[float, float]
    goal: Optional[float]
    better: str
    ours: float
    peer: float
    unit: str
    runs: int

    @property
    def is_met(self) -> Optional[bool]:
        """Whether the ratio reaches the goal; None without one."""
        if self.goal is None:
            return None
        return self.ratio <= self.goal if self.better == "lower" else self.ratio >= self.goal

    def line(self) -> str:
        """The row as text, under `HEADER`."""
        low, high = self.interval
        goal = "-" if self.goal is None else f"{self.goal:g} {'met' if self.is_met else 'MISSED'}"
        return (
            f"{self.name:<60} {self.ours:>10.4g} {self.peer:>10.4g} {self.unit:<5} {self.ratio:>7.3f} "
            f"{low:>7.3f} to {high:<7.3f} {self.runs:>4}  {goal}"
        )


HEADER = f"{'':<60} {'ours':>10} {'peer':>10} {'':<5} {'ratio':>7} {'95% interval':^18} {'runs':>4}  goal"


def compare(
    name: str,
    ours: Callable[[], float],
    peer: Callable[[], float],
    *,
    unit: str,
    runs: int,
    goal: Optional[float] = None,
    better: str = "lower",
) -> Comparison:
    """Measure both in turns; for the arguments see `measure_in_turns` and `Comparison`."""
    return comparison_of(name, *measure_in_turns(ours, peer, runs), unit=unit, goal=goal, better=better)


def measure_in_turns(ours: Callable[[], float], peer: Callable[[], float], runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Measure both so that whatever else the machine does meets both alike.

    Each pair is measured in the order opposite to the pair before it.

    Args:
        ours: measures once and returns the number; `peer` likewise.

    Returns:
        The numbers of both, float64 [runs].
    """
    pairs = []
    for run in range(runs):
        if run % 2 == 0:
            first = ours()
            pairs.append((first, peer()))
        else:
            second = peer()
            pairs.append((ours(), second))
    our_values, peer_values = np.array(pairs, np.float64).T
    return our_values, peer_values


def comparison_of(
    name: str, ours: np.ndarray, peer: np.ndarray, *, unit: str, goal: Optional[float] = None, better: str = "lower"
) -> Comparison:
    """The row of numbers measured in turns: the median of the pairs' ratios."""
    ratios = ours / peer
    ratio, interval = float(np.median(ratios)), median_interval(ratios)
    return Comparison(
        name, ratio, interval, goal, better, float(np.median(ours)), float(np.median(peer)), unit, len(ours)
    )


def percentile_of(name: str, ours: np.ndarray, peer: np.ndarray, *, percent: float, unit: str) -> Comparison:
    """The row of a percentile of numbers measured in turns: the ratio of both percentiles.

    Its interval is the bootstrap's over pairs; few runs say little about a tail.
    """
    rows = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    tails = [np.percentile(values, percent) for values in (ours, peer)]
    ratios = np.percentile(ours[rows], percent, axis=1) / np.percentile(peer[rows], percent, axis=1)
    low, high = np.percentile(ratios, (2.5, 97.5))
    ours_at, peer_at = map(float, tails)
    return Comparison(
        name, ours_at / peer_at, (float(low), float(high)), None, "lower", ours_at, peer_at, unit, len(ours)
    )


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% percentile bootstrap interval of the median of `values`, the same at every call."""
    resamples = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(resamples, axis=1), (2.5, 97.5))
    return float(low), float(high)


def milliseconds(call: Callable[[], Any]) -> Callable[[], float]:
    """A function that measures how long `call` takes. It is called twice first: graphs compile, buffers are made."""
    call()
    call()

    def measure() -> float:
        started = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - started)

    return measure
