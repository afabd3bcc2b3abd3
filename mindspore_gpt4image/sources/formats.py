"""Listing the images of a data set in any of the ways it may be stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mindspore_gpt4image.sources.cifar import find_cifar, list_cifar
from mindspore_gpt4image.sources.image_folder import list_folder
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.packed import is_packed, list_packed, read_pack

_LISTERS = {
    "folder": list_folder,
    "cifar": list_cifar,
    "cifar10": partial(list_cifar, data_set="cifar10"),
    "cifar100": partial(list_cifar, data_set="cifar100"),
    "mindrecord": list_packed,
}
FORMATS = ("auto", "folder", "cifar10", "cifar100", "mindrecord")


def list_images(
    root: str | Path, split: str, *, format: str = "auto", classes: Sequence[str] | None = None
) -> ImageSet:
    """List the images of a split.

    Args:
        format: one of `FORMATS`; `auto` tells it by what lies at `root`.
        classes: names in the order of the labels, those of a checkpoint or of the train split, for instance; None: the
            data set's own order.

    Raises:
        UserError: there is no such split, it is not in this format, or it has classes beyond `classes`.
    """
    root = Path(root)
    return _LISTERS[_detect(root) if format == "auto" else format](root, split, classes)


def validation_split(root: str | Path, format: str = "auto") -> str:
    """The split that training is watched on: `val`, or `test` for CIFAR, packed or not, which has no other."""
    format = _detect(Path(root)) if format == "auto" else format
    if format == "mindrecord":
        return "val" if "val" in read_pack(root)["splits"] else "test"
    return "test" if format.startswith("cifar") else "val"


def _detect(root: Path) -> str:
    if is_packed(root):
        return "mindrecord"
    return "cifar" if find_cifar(root) else "folder"
