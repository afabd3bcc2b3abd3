"""Figures of a comparison: curves over epochs, and every seed's result."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mindspore_gpt4image.report.comparison import Comparison
from mindspore_gpt4image.runs import Group

# A dollar in the name of a class begins no formula.
rcParams["text.parse_math"] = False

# Okabe and Ito's colours, which colour-blind people can tell apart.
_COLOURS = {"baseline": "#4d4d4d", "aligned": "#0072b2", "control": "#d55e00"}
_MORE_COLOURS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_OUTCOMES = {"better": "#0072b2", "worse": "#d55e00", "none": "#4d4d4d", "undecided": "#999999"}
_INK, _GRID = "#333333", "#e5e5e5"
_DPI = 160
# Largest numbers of classes whose confusion matrix has names, and numbers in its cells.
_MOST_NAMED, _MOST_NUMBERED = 120, 20


@dataclass(frozen=True)
class HeatMap:
    """Top-1 in percent, a row and a column a setting; None where no run is finished.

    Attributes:
        title, row_name, column_name: of the panel and its axes; may be empty.
        references: of the same shape: what each cell's colour is the difference from.
    """

    title: str
    row_name: str
    rows: Sequence[str]
    column_name: str
    columns: Sequence[str]
    values: Sequence[Sequence[Optional[float]]]
    references: Sequence[Sequence[Optional[float]]]


def colours(groups: Sequence[Group]) -> dict[str, str]:
    """A colour for each group's label; an arm keeps its own where it has one group."""
    found, more = {}, 0
    for group in groups:
        if _COLOURS[group.arm] not in found.values():
            found[group.label] = _COLOURS[group.arm]
        else:
            found[group.label] = _MORE_COLOURS[more % len(_MORE_COLOURS)]
            more += 1
    return found


def curves(comparison: Comparison) -> Figure:
    """Cross-entropy, alignment loss and validation top-1 over epochs: mean over seeds, range of the seeds as a band."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    groups = comparison.groups
    with_texts = [group for group in groups if group.arm != "baseline"]
    losses, top1, *rest = figure.subplots(1, 3 if with_texts else 2)
    for group in groups:
        colour = colours(groups)[group.label]
        _curve(losses, group, "train_ce", colour, label=group.label)
        _curve(losses, group, "val_ce", colour, linestyle="--")
        _curve(top1, group, "val_top1", colour)
    style(losses, "Cross-entropy (dashed: validation)", "epoch")
    style(top1, "Validation top-1 (%)", "epoch")
    for alignment in rest:
        for group in with_texts:
            _curve(alignment, group, "train_align", colours(groups)[group.label])
        style(alignment, "Alignment loss, training", "epoch")
    figure.legend(loc="outside lower center", ncols=len(comparison.groups), frameon=False, fontsize=10)
    return figure


def results(comparison: Comparison) -> Figure:
    """Top-1 of every run, the runs of one seed joined by a line; beside it the differences with their intervals."""
    figure = Figure(figsize=(11, 1.8 + 0.6 * max(3, len(comparison.pairs))), layout="constrained")
    if comparison.pairs:
        dots, intervals = figure.subplots(1, 2, width_ratios=[1, 1.1])
        _intervals(intervals, comparison)
    else:
        dots = figure.subplots()
    _dots(dots, comparison)
    return figure


def heat_map(maps: Sequence[HeatMap], split: str, reference: str) -> Figure:
    """Panels of top-1, each cell coloured by its difference from the reference arm: blue above it, red below."""
    # NaN is what matplotlib leaves blank.
    values = [np.array(panel.values, float) for panel in maps]
    differences = [found - np.array(panel.references, float) for found, panel in zip(values, maps)]
    known = np.concatenate([np.abs(part[np.isfinite(part)]) for part in differences])
    limit = max(known.max(initial=0.0), 0.1)
    columns = min(len(maps), 3)
    lines = -(-len(maps) // columns)
    rows, across = len(maps[0].rows), len(maps[0].columns)
    label = 0.08 * max(map(len, maps[0].rows))
    size = columns * (label + 0.3 + 0.85 * across) + 1.2, lines * (0.42 * rows + 0.9) + 0.8
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes, panel, found, difference in zip(grid.flat, maps, values, differences):
        axes.set_facecolor(_GRID)
        image = axes.imshow(difference, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        axes.set_xticks(range(len(panel.columns)), panel.columns, fontsize=9)
        axes.set_yticks(range(len(panel.rows)), panel.rows, fontsize=9)
        axes.set_xlabel(panel.column_name, fontsize=9, color=_INK)
        axes.set_ylabel(panel.row_name, fontsize=9, color=_INK)
        axes.set_title(panel.title, loc="left", fontsize=10, color=_INK)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=_INK)
        for row, column in np.ndindex(found.shape):
            value, away = found[row, column], difference[row, column]
            colour = "white" if abs(away) > 0.5 * limit else _INK
            text = "–" if np.isnan(value) else f"{value:.2f}"
            axes.text(column, row, text, ha="center", va="center", fontsize=9, color=colour)
    for axes in grid.flat[len(maps) :]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=grid.ravel().tolist(), fraction=0.03, shrink=0.9)
    bar.set_label(f"points above {reference}", fontsize=9, color=_INK)
    bar.ax.tick_params(colors=_INK, labelsize=9)
    bar.outline.set_visible(False)
    figure.suptitle(f"Top-1 on {split} (%)", x=0.01, ha="left", fontsize=11, color=_INK)
    return figure


def confusion_matrix(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Rows are true classes, columns what they are taken for, coloured by the share of the row; names where they fit.

    Args:
        counts: int [C, C].
    """
    size = len(names)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    named = size <= _MOST_NAMED
    side = 2.5 + (0.17 if size > _MOST_NUMBERED else 0.42) * size if named else 9
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if named:
        font = 8.5 if size > _MOST_NUMBERED else 9
        axes.set_xticks(range(size), names, rotation=90, fontsize=font)
        axes.set_yticks(range(size), names, fontsize=font)
    if size <= _MOST_NUMBERED:
        for row, column in zip(*counts.nonzero()):
            colour = "white" if shares[row, column] > 0.5 else _INK
            axes.text(column, row, counts[row, column], ha="center", va="center", fontsize=8, color=colour)
    axes.set_xlabel("taken for", fontsize=10, color=_INK)
    axes.set_ylabel("class", fontsize=10, color=_INK)
    axes.spines[:].set_color(_GRID)
    axes.tick_params(length=0, colors=_INK)
    bar = figure.colorbar(image, ax=axes, fraction=0.03, shrink=0.8)
    bar.set_label("% of the class", fontsize=9, color=_INK)
    bar.ax.tick_params(colors=_INK, labelsize=9)
    bar.outline.set_visible(False)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, dpi=_DPI, format="png")
    return file.getvalue()


def _dots(axes: Axes, comparison: Comparison) -> None:
    values = [{run.seed: run.evaluation["top1"] for run in group.runs} for group in comparison.groups]
    for seed in comparison.seeds:
        points = [(x, found[seed]) for x, found in enumerate(values) if seed in found]
        axes.plot(*zip(*points), color="#bbbbbb", linewidth=1, zorder=1)
    for x, (group, found) in enumerate(zip(comparison.groups, values)):
        colour = colours(comparison.groups)[group.label]
        mean = np.mean(list(found.values()))
        axes.scatter([x] * len(found), found.values(), color=colour, s=34, edgecolor="white", linewidth=0.8, zorder=3)
        axes.hlines(mean, x - 0.22, x + 0.22, color=colour, linewidth=2.5, zorder=2)
        axes.annotate(f"{mean:.1f}", (x + 0.26, mean), color=colour, va="center", fontsize=10, fontweight="bold")
    axes.set_xticks(range(len(values)), [_wrapped(group.label) for group in comparison.groups])
    axes.set_xlim(-0.5, len(values) - 0.3)
    style(axes, f"Top-1 on {comparison.split} (%): a dot a seed, a bar their mean")


def _intervals(axes: Axes, comparison: Comparison) -> None:
    """Thick: 95% over seeds; thin: 95% over images."""
    names = []
    for y, pair in enumerate(comparison.pairs):
        names.append(_wrapped(f"{pair.second.label}\n− {pair.first.label}"))
        if pair.difference is None:
            continue
        colour = _OUTCOMES[pair.outcome]
        axes.plot(pair.difference.mean, y, "o", color=colour, markersize=7, zorder=3)
        axes.plot(pair.images, (y + 0.2, y + 0.2), color="#999999", linewidth=1.2)
        if pair.difference.interval:
            axes.plot(pair.difference.interval, (y, y), color=colour, linewidth=3, solid_capstyle="butt")
    axes.axvline(0, color=_INK, linewidth=1, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    style(axes, "Difference in top-1 (points), 95% over seeds (thick), images (thin)", grid="x")


def _wrapped(label: str) -> str:
    return label.replace(", ", "\n")


def _curve(axes: Axes, group: Group, key: str, colour: str, **style: str) -> None:
    epochs = [line["epoch"] for line in group.runs[0].metrics]
    values = np.array([[line[key] for line in run.metrics] for run in group.runs])
    axes.plot(epochs, values.mean(axis=0), color=colour, linewidth=1.8, marker=".", markersize=4, **style)
    axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)


def style(axes: Axes, title: str, xlabel: str | None = None, grid: str = "y") -> None:
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=9)
    if xlabel:
        axes.set_xlabel(xlabel, color=_INK, fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
