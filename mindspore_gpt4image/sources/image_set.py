"""The images of one split, however they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mindspore_gpt4image.errors import UserError


class ImageReader(Protocol):
    """Reads images by their positions in a set; one class for each way to store them. Safe in threads."""

    def encoded(self, position: int) -> bytes:
        """An encoded image that any decoder, MindData's and Pillow among them, turns into the pixels of `rgb`.

        Raises:
            UserError: it is broken; `where` names it.
        """

    def rgb(self, position: int) -> Image.Image:
        """The image in RGB, 8 bit, upright.

        Raises:
            UserError: as `encoded`, and where only decoding shows that it is broken.
        """

    def where(self, position: int) -> str:
        """What leads a user to the image: its path, or its file and place therein."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of one split, sorted by id. Pixels are read through its methods, which are those of `ImageReader`.

    Attributes:
        root: where the data set lies.
        split: the split's name.
        ids: as in descriptions and stores, split included: `train/cat/a.png`.
        labels: int32 [n], positions in `classes`.
        classes: names of the classes.
        reader: reads the pixels.
        skipped: how many files are not images, by extension in lower case.
    """

    root: Path
    split: str
    ids: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    reader: ImageReader
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self, position: int) -> bytes:
        return self.reader.encoded(position)

    def rgb(self, position: int) -> Image.Image:
        return self.reader.rgb(position)

    def where(self, position: int) -> str:
        return self.reader.where(position)

    def find_broken(self, positions: Iterable[int] | None = None) -> list[tuple[int, str]]:
        """Decode every image in full, or those at `positions`; the positions that fail and why, in the order given."""
        positions = iter(range(len(self)) if positions is None else positions)
        found = []
        with ThreadPoolExecutor() as pool:
            # In blocks: a pool queues all that it is given, and there may be millions.
            while block := list(islice(positions, 1024)):
                found += [(position, fault) for position, fault in zip(block, pool.map(self._fault, block)) if fault]
        return found

    def _fault(self, position: int) -> str | None:
        try:
            self.rgb(position)
        except UserError as error:
            return str(error)
        return None
