"""The pictures and classes of the images that a description set names, as far as they are at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.cifar import find_cifar
from mindspore_gpt4image.sources.decoding import open_rgb
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.image_set import ImageSet

_NO_PICTURE = (8, 8), "#eeeeee"


class DescribedImages:
    """Pictures by id: files of a folder, or images of CIFAR; a grey field where there is none.

    Args:
        root: of the data set; a place without pictures will do.
    """

    def __init__(self, root: Path):
        self._root = root
        self._sets = [list_images(root, split) for split in ("train", "test")] if find_cifar(root) else []
        self._place = {id: (images, n) for images in self._sets for n, id in enumerate(images.ids)}

    @property
    def classes(self) -> dict[str, str] | None:
        """The class of each image by id, where ids do not tell it (CIFAR)."""
        if not self._sets:
            return None
        return {id: images.classes[images.labels[n]] for id, (images, n) in self._place.items()}

    def rgb(self, id: str) -> Image.Image:
        """The picture, or a grey field."""
        try:
            if id in self._place:
                images, position = self._place[id]
                return images.rgb(position)
            return open_rgb(self._path(id))
        except UserError:
            return Image.new("RGB", *_NO_PICTURE)

    def select(self, ids: Sequence[str], labels: np.ndarray, classes: Sequence[str]) -> ImageSet:
        """Some images as a set."""
        return ImageSet(self._root, "", list(ids), labels, tuple(classes), _Reader(self, ids))

    def _path(self, id: str) -> Path:
        path = PurePosixPath(id)
        if path.is_absolute() or ".." in path.parts:
            # A page must not show what a set from elsewhere points at on this machine.
            raise UserError(f"id {id!r}: leads out of {self._root}")
        return self._root / path


class _Reader:
    def __init__(self, images: DescribedImages, ids: Sequence[str]):
        self._images, self._ids = images, ids

    def encoded(self, position: int) -> bytes:
        raise NotImplementedError("pages show pixels")

    def rgb(self, position: int) -> Image.Image:
        return self._images.rgb(self._ids[position])

    def where(self, position: int) -> str:
        return self._ids[position]
