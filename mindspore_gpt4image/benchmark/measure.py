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
        ratio: median over the runs of ours / peer.
        interval: 95% bootstrap interval of that median.
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
    """Measure both in turns, so that whatever else the machine does meets both alike.

    Each pair is measured in the order opposite to the pair before it.

    Args:
        ours: measures once and returns the number; `peer` likewise. For the rest see `Comparison`.
    """
    pairs = []
    for run in range(runs):
        if run % 2 == 0:
            first = ours()
            pairs.append((first, peer()))
        else:
            second = peer()
            pairs.append((ours(), second))
    our_values, peer_values = np.array(pairs).T
    ratios = our_values / peer_values
    return Comparison(
        name=name,
        ratio=float(np.median(ratios)),
        interval=median_interval(ratios),
        goal=goal,
        better=better,
        ours=float(np.median(our_values)),
        peer=float(np.median(peer_values)),
        unit=unit,
        runs=runs,
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
