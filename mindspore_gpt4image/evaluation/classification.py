"""Classification: predictions for a split, and what they are worth. It needs no framework."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
from tqdm import tqdm

from mindspore_gpt4image.files import replacing
from mindspore_gpt4image.sources.evaluation_batches import evaluation_batches
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.preprocessing import EvalTransform

TOP = 5


@dataclass(frozen=True, eq=False)
class Predictions:
    """The best classes of every image of a split, best first.

    Attributes:
        images: the images, with their true labels.
        classes: int32 [n, min(5, C)], positions in `images.classes`.
        probabilities: float32 [n, min(5, C)].
        true_log_probability: float32 [n], of the true class.
    """

    images: ImageSet
    classes: np.ndarray
    probabilities: np.ndarray
    true_log_probability: np.ndarray

    @property
    def cross_entropy(self) -> float:
        """Mean over the images, in nats."""
        return float(-self.true_log_probability.astype(np.float64).mean())

    def correct(self, k: int = 1) -> np.ndarray:
        """bool [n]: whether the true class is among the best k."""
        return (self.classes[:, :k] == self.images.labels[:, None]).any(axis=1)

    def accuracy(self, k: int = 1) -> float:
        """Top-k accuracy in percent. With fewer than k classes it is that of all of them."""
        return 100.0 * float(self.correct(k).mean())

    def to_dict(self) -> dict:
        """All of it, for a JSON file: totals, each class, and each image's best classes by id.

        `k` says how many classes `top5` really looked at, where there are fewer than five.
        """
        names = self.images.classes
        return {
            "images": len(self.images),
            "top1": self.accuracy(1),
            "top5": self.accuracy(TOP),
            "k": self.classes.shape[1],
            "ce": self.cross_entropy,
            "classes": self.per_class(),
            "predictions": [
                {
                    "id": id,
                    "class": names[label],
                    "predicted": [names[position] for position in best],
                    "probabilities": [round(float(value), 6) for value in probabilities],
                }
                for id, label, best, probabilities in zip(
                    self.images.ids, self.images.labels, self.classes, self.probabilities
                )
            ],
        }

    def per_class(self) -> list[dict]:
        """For each class: its name, images, right answers, and in percent top-1 (its recall), precision and F1.

        None stands for what cannot be told: top-1 without images, precision without answers, F1 without either.
        """
        size = len(self.images.classes)
        total, answered, right = (
            np.bincount(labels, minlength=size)
            for labels in (self.images.labels, self.classes[:, 0], self.images.labels[self.correct()])
        )
        return [
            {
                "class": name,
                "images": int(total[label]),
                "correct": int(right[label]),
                "top1": _percent(right[label], total[label]),
                "precision": _percent(right[label], answered[label]),
                "f1": _percent(2 * right[label], total[label] + answered[label]),
            }
            for label, name in enumerate(self.images.classes)
        ]


def _percent(part: int, whole: int) -> float | None:
    return 100.0 * int(part) / int(whole) if whole else None


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Row-wise log softmax of float [n, C], in float64; NaN in rows with an infinite logit, as a broken network has."""
    with np.errstate(invalid="ignore"):
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def predict(
    classify: Callable[[np.ndarray], np.ndarray],
    images: ImageSet,
    transform: EvalTransform,
    batch_size: int,
    workers: int,
    desc: str | None = None,
    positions: Sequence[int] | None = None,
    among: np.ndarray | None = None,
) -> Predictions:
    """Run `classify` (pixels uint8 [B, H, W, 3] -> logits [B, C], arrays) over the images; exact for any batch size.

    Args:
        desc: title of a progress bar; None: no bar.
        positions: the images to look at, the rest is left 0; None: all.
        among: labels of the classes that may be answered, int [m]; None: all.
    """
    count = min(TOP, len(images.classes) if among is None else len(among))
    barred = np.zeros(len(images.classes))
    if among is not None:
        barred[:] = -np.inf
        barred[among] = 0
    classes = np.zeros((len(images), count), np.int32)
    probabilities = np.zeros((len(images), count), np.float32)
    true_log_probability = np.zeros(len(images), np.float32)
    positions = np.arange(len(images)) if positions is None else np.asarray(positions)
    with tqdm(total=len(positions), desc=desc, unit="img", disable=desc is None) as bar:
        for pixels, rows in evaluation_batches(images, positions, transform, batch_size, workers):
            scores = log_softmax(classify(pixels)[: len(rows)] + barred)
            # A stable sort: equal scores go to the smaller class, whatever the batch.
            best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            classes[rows] = best
            probabilities[rows] = np.exp(np.take_along_axis(scores, best, axis=1))
            true_log_probability[rows] = scores[np.arange(len(rows)), images.labels[rows]]
            bar.update(len(rows))
    return Predictions(images, classes, probabilities, true_log_probability)


def write_csv(predictions: Predictions, path: str | Path) -> None:
    """Write a line an image: its id, its class, and the best classes with their probabilities."""
    names = predictions.images.classes
    ranks = range(1, predictions.classes.shape[1] + 1)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "class", *(f"{what}{rank}" for rank in ranks for what in ("predicted", "probability"))])
        rows = zip(predictions.images.ids, predictions.images.labels, predictions.classes, predictions.probabilities)
        for id, label, best, probabilities in rows:
            answers = (cell for pair in zip(best, probabilities) for cell in (names[pair[0]], f"{pair[1]:.6f}"))
            writer.writerow([id, names[label], *answers])
