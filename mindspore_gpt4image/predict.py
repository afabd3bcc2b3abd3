"""The best classes of images that nobody has labelled. It needs no framework; the classifier may."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindspore_gpt4image.classifiers import Classifier
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.classification import predict
from mindspore_gpt4image.sources.image_folder import EXTENSIONS, ImageFiles, images_below
from mindspore_gpt4image.sources.image_set import ImageSet

BATCH_SIZE = 64


@dataclass(frozen=True)
class Prediction:
    """An image's best classes, at most five, best first, and their probabilities."""

    image: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_dict(self) -> dict:
        """With the keys of an evaluation's predictions."""
        return {
            "image": str(self.image),
            "predicted": list(self.classes),
            "probabilities": [round(value, 6) for value in self.probabilities],
        }


def read_names(arguments: Sequence[str], lines: Iterable[str]) -> list[str]:
    """The arguments, with the lines that are not empty in place of `-`.

    Raises:
        UserError: the lines name nothing.
    """
    if "-" not in arguments:
        return list(arguments)
    names = [name for line in lines if (name := line.rstrip("\r\n"))]
    if not names:
        raise UserError("standard input: names no image; write one a line")
    position = arguments.index("-")
    return [*arguments[:position], *names, *arguments[position + 1 :]]


def find_images(places: Iterable[str | Path]) -> list[Path]:
    """The files among `places` as they are, and the images below each folder (`images_below`).

    Raises:
        UserError: there is no such file or folder, or a folder that holds no image or cannot be listed.
    """
    found = []
    for place in map(Path, places):
        if place.is_dir():
            images = images_below(place)
            if not images:
                raise UserError(f"{place}: holds no image; known endings are {', '.join(sorted(EXTENSIONS))}")
            found += images
        elif place.is_file():
            found.append(place)
        else:
            raise UserError(f"{place}: no such file or folder")
    return found


def find_broken(images: Sequence[Path]) -> dict[Path, str]:
    """The images that cannot be decoded, and why."""
    return {images[position]: fault for position, fault in _unlabelled(images).find_broken()}


def predict_images(classifier: Classifier, images: Sequence[Path]) -> list[Prediction]:
    """Classify readable images, with the pixels and the code of evaluation.

    Raises:
        UserError: an image cannot be decoded; see `find_broken`.
    """
    model = classifier.model
    # The last batch is filled up: a single image must not cost a whole one.
    batch_size = min(BATCH_SIZE, max(len(images), 1))
    unlabelled = _unlabelled(images, model.classes)
    best = predict(classifier.logits, unlabelled, model.transform, batch_size, workers=os.cpu_count() or 1)
    return [
        Prediction(image, tuple(model.classes[position] for position in classes), tuple(map(float, probabilities)))
        for image, classes, probabilities in zip(images, best.classes, best.probabilities)
    ]


def _unlabelled(images: Sequence[Path], classes: tuple[str, ...] = ()) -> ImageSet:
    """A set of images whose classes are not known: nothing may be read from its labels."""
    ids = list(map(str, images))
    return ImageSet(Path(), "", ids, np.zeros(len(ids), np.int32), classes, ImageFiles(Path(), ids))


def render_table(predictions: Sequence[Prediction]) -> str:
    """Columns of image, class and probability; a line a class, the image on its first."""
    rows = [("image", "class", "probability")]
    for prediction in predictions:
        for rank, (name, probability) in enumerate(zip(prediction.classes, prediction.probabilities)):
            rows.append((str(prediction.image) if rank == 0 else "", name, f"{probability:.2%}"))
    image, name, probability = (max(map(len, column)) for column in zip(*rows))
    return "\n".join(f"{row[0]:{image}}  {row[1]:{name}}  {row[2]:>{probability}}" for row in rows)


def render_csv(predictions: Sequence[Prediction]) -> str:
    """The same as CSV with a header and a line a class; `rank` is 1 for the best."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "rank", "class", "probability"))
    for prediction in predictions:
        for rank, (name, probability) in enumerate(zip(prediction.classes, prediction.probabilities), 1):
            writer.writerow((prediction.image, rank, name, f"{probability:.6f}"))
    return text.getvalue()
