"""The images of one split, however they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
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


class _Selection:
    """Reads some of another reader's images."""

    def __init__(self, reader: ImageReader, positions: Sequence[int]):
        self._reader, self._positions = reader, positions

    def encoded(self, position: int) -> bytes:
        return self._reader.encoded(self._positions[position])

    def rgb(self, position: int) -> Image.Image:
        return self._reader.rgb(self._positions[position])

    def where(self, position: int) -> str:
        return self._reader.where(self._positions[position])


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
        broken: what is wrong with each file that was found to be no readable image, by id; see `checked`.
    """

    root: Path
    split: str
    ids: list[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    reader: ImageReader
    skipped: dict[str, int] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def notes(self) -> list[str]:
        """What a user should know of the folder: files that are not read, and broken ones; a line a kind."""
        lines, place = [], self.root / self.split
        if self.skipped:
            kinds = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in self.skipped.items())
            lines.append(f"{place}: files that are not read as images: {kinds}")
        if self.broken:
            first = next(iter(self.broken.values()))
            lines.append(f"{place}: broken images: {len(self.broken)}, first: {first}")
        return lines

    def checked(self, skip_broken: bool = False) -> ImageSet:
        """This set, if none of its images is known to be broken.

        Args:
            skip_broken: leave broken ones out instead of refusing them.

        Raises:
            UserError: an image is broken, or all of them.
        """
        if not self.broken:
            return self
        first, count = next(iter(self.broken.values())), len(self.broken)
        if not skip_broken or count == len(self):
            more = f" ({count} of {len(self)} images in {self.root / self.split} are broken)" if count > 1 else ""
            raise UserError(first + more)
        return self.select([position for position, id in enumerate(self.ids) if id not in self.broken])

    def select(self, positions: Sequence[int]) -> ImageSet:
        """Some of the images, in the order given."""
        ids = [self.ids[position] for position in positions]
        return replace(self, ids=ids, labels=self.labels[positions], reader=_Selection(self.reader, positions))

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
