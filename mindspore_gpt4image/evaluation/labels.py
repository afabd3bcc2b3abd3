"""Other people's labels: splits whose folders are named otherwise, and images that have several right classes.

What ImageNet's companions need: -V2 numbers its folders, -A and -R hold 200 of the classes, ReaL gives the validation
images new labels. -Sketch is an ordinary split.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.classification import TOP, Predictions
from mindspore_gpt4image.sources.classes import label_map
from mindspore_gpt4image.sources.image_set import ImageSet


def rename_folders(images: ImageSet, path: str | Path, classes: tuple[str, ...]) -> ImageSet:
    """The images with labels in `classes`, after a JSON object of the folders' names and the classes they stand for.

    Args:
        images: as they were listed, in the order of their own classes.

    Raises:
        UserError: no such object, a folder that it lacks, or a class that is unknown.
    """
    names = _read_json(path)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{path}: must be a JSON object of folders and the names of their classes")
    if missing := [folder for folder in images.classes if folder not in names]:
        raise UserError(f"{path}: lacks {len(missing)} folders of {images.root / images.split} (first: {missing[0]})")
    labels = label_map([names[folder] for folder in images.classes], classes, path)
    return replace(images, classes=classes, labels=labels[images.labels])


def read_label_sets(path: str | Path, images: ImageSet) -> list[np.ndarray]:
    """The right labels of each image, none where nothing is right, from a list as ReaL's `real.json` is one.

    It has a list of class numbers for each image, in the order of the files' names, folders left out.

    Raises:
        UserError: no such list, another number of images, or a number that is no class.
    """
    sets = _read_json(path)
    if not isinstance(sets, list) or not all(isinstance(labels, list) for labels in sets):
        raise UserError(f"{path}: must be a JSON list that has a list of class numbers for each image")
    if len(sets) != len(images):
        raise UserError(f"{path}: is about {len(sets)} images, {images.root / images.split} has {len(images)}")
    size = len(images.classes)
    for number, labels in enumerate(sets):
        if not all(type(label) is int and 0 <= label < size for label in labels):
            raise UserError(f"{path}: entry {number} is {labels}; the classes are 0 to {size - 1}")
    order = sorted(range(len(images)), key=lambda position: PurePosixPath(images.ids[position]).name)
    found = [np.empty(0, np.int32)] * len(images)
    for position, labels in zip(order, sets):
        found[position] = np.array(labels, np.int32)
    return found


def relabelled(predictions: Predictions, label_sets: list[np.ndarray]) -> dict[str, float]:
    """Top-1 and top-5 in percent: a prediction is right if it is one of the image's labels; images without count not.

    Raises:
        UserError: no image has a label.
    """
    pairs = [(best, labels) for best, labels in zip(predictions.classes, label_sets) if len(labels)]
    if not pairs:
        raise UserError("the labels: none of the images has one")
    first, among = (
        100.0 * float(np.mean([np.isin(best[:k], labels).any() for best, labels in pairs])) for k in (1, TOP)
    )
    return {"images": len(pairs), "top1": first, "top5": among}


def _read_json(path: str | Path) -> object:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no JSON file ({error})") from error
