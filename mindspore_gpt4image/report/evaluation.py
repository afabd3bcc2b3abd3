"""One checkpoint on one split: a page with its classes, its confusions and its most confident mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_gpt4image.evaluation.classification import Predictions
from mindspore_gpt4image.files import atomic_write, replacing
from mindspore_gpt4image.report.comparison import Table
from mindspore_gpt4image.report.figures import confusion_matrix, png
from mindspore_gpt4image.report.pages import render_page
from mindspore_gpt4image.report.pictures import data_uri, thumbnail

MISTAKES = 48
PAIRS = 15
SIDE = 112


def confusion(predictions: Predictions) -> np.ndarray:
    """int64 [C, C]: how many images of the row's class are taken for the column's."""
    size = len(predictions.images.classes)
    cells = predictions.images.labels.astype(np.int64) * size + predictions.classes[:, 0]
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def most_confident_mistakes(predictions: Predictions, most: int) -> np.ndarray:
    """Positions of the wrongly classified images, the highest probability of the wrong class first."""
    wrong = np.flatnonzero(~predictions.correct())
    return wrong[np.argsort(-predictions.probabilities[wrong, 0], kind="stable")][:most]


def class_table(predictions: Predictions) -> Table:
    """Precision, recall and F1 of every class that has images, the lowest F1 first."""
    rows = [row for row in predictions.per_class() if row["images"]]
    rows.sort(key=lambda row: row["f1"])
    cells = [
        [row["class"], str(row["images"]), *(_percent(row[key]) for key in ("precision", "top1", "f1"))] for row in rows
    ]
    return Table("Classes, in percent", ["class", "images", "precision", "recall", "F1"], cells)


def pair_table(predictions: Predictions) -> Table:
    """The most frequent confusions."""
    counts = confusion(predictions)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    names = predictions.images.classes
    rows = []
    for cell in np.argsort(-counts, axis=None, kind="stable")[:PAIRS]:
        truth, taken = divmod(int(cell), len(names))
        if counts[truth, taken]:
            share = _percent(100 * counts[truth, taken] / totals[truth])
            rows.append([names[truth], names[taken], str(counts[truth, taken]), share])
    return Table("Most frequent confusions", ["class", "taken for", "images", "% of the class"], rows)


def write_evaluation_report(predictions: Predictions, values: Mapping[str, Any], folder: Path) -> None:
    """Write eval.html, which needs no other file, and confusion.png into `folder`."""
    picture = png(confusion_matrix(confusion(predictions), predictions.images.classes))
    with replacing(folder / "confusion.png") as temporary:
        temporary.write_bytes(picture)
    page = render_page(
        "evaluation.html.j2",
        values=values,
        mistakes=int((~predictions.correct()).sum()),
        cards=[_card(predictions, position) for position in most_confident_mistakes(predictions, MISTAKES)],
        classes=class_table(predictions),
        pairs=pair_table(predictions),
        confusion=data_uri(picture, "png"),
    )
    atomic_write(folder / "eval.html", page)


def _card(predictions: Predictions, position: int) -> dict[str, Any]:
    images, truth = predictions.images, predictions.images.labels[position]
    best = zip(predictions.classes[position][:3], predictions.probabilities[position])
    return {
        "id": images.ids[position],
        "class": images.classes[truth],
        "guesses": [
            {"class": images.classes[label], "percent": 100 * probability, "right": label == truth}
            for label, probability in best
        ],
        "picture": thumbnail(images.rgb(position), SIDE),
    }


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
