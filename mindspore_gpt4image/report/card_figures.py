"""Figures of a card: how long the texts are, and how clearly they speak for their class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mindspore_gpt4image.report.card import Described
from mindspore_gpt4image.report.figures import style

# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_BINS = 60
_ALPHA = 0.55


def lengths(sets: Sequence[Described]) -> Figure:
    """Words a text; tokens a text with the encoder's limit as a line, where stores tell; margins, where classes do."""
    tokens = [each.store.metadata.get("tokens") if each.store else None for each in sets]
    margins = [each.separability is not None for each in sets]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    axes = list(figure.subplots(1, 1 + any(tokens) + any(margins), squeeze=False)[0])
    words = axes.pop(0)
    _histogram(words, [(np.asarray(each.texts.words), None) for each in sets])
    style(words, "Words a text", "words")
    if any(tokens):
        panel = axes.pop(0)
        _histogram(panel, [np.array(found).T if found else (np.zeros(0, int), None) for found in tokens])
        for each, colour in zip(sets, COLOURS):
            if each.store and (limit := each.store.metadata.get("context_length")) and limit < panel.get_xlim()[1] * 3:
                panel.axvline(limit, color=colour, linestyle="--", linewidth=1.2)
        style(panel, "Tokens a text (dashed: what the encoder reads)", "tokens")
    if any(margins):
        panel = axes.pop(0)
        found = [each.separability.margin if each.separability else np.zeros(0) for each in sets]
        _histogram(panel, [(values[np.isfinite(values)], None) for values in found])
        panel.axvline(0, color="#333333", linewidth=1)
        style(panel, "Cosine to its class less that to the best other")
    for panel in figure.axes:
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
    if len(sets) > 1:
        handles = [Patch(color=colour, alpha=_ALPHA, label=each.label) for each, colour in zip(sets, COLOURS)]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(sets), frameon=False)
    return figure


def _histogram(axes: Axes, values: list[tuple[np.ndarray, np.ndarray | None]]) -> None:
    """Of each set a filled outline, as shares of its texts; whole numbers get bins of whole width."""
    everything = np.concatenate([numbers for numbers, _ in values])
    low, high = everything.min(), everything.max()
    if everything.dtype.kind == "i":
        step = max(1, -(-(high - low + 1) // _BINS))
        edges = np.arange(low, high + step + 1, step) - 0.5
    else:
        edges = np.linspace(low, high, _BINS)
    for (numbers, counts), colour in zip(values, COLOURS):
        if len(numbers):
            weights = np.ones(len(numbers)) if counts is None else counts
            axes.hist(
                numbers, edges, weights=weights / weights.sum(), color=colour, alpha=_ALPHA, histtype="stepfilled"
            )
