"""Listing the images of a data set in any of the ways it may be stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mindspore_gpt4image.sources.image_folder import list_folder
from mindspore_gpt4image.sources.image_set import ImageSet

_LISTERS = {"folder": list_folder}
FORMATS = ("auto", *_LISTERS)


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


def _detect(root: Path) -> str:
    return "folder"
