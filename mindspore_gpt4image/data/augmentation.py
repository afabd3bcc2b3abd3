"""What happens to a training image before it reaches the graph.

MindData starts every random operator of a pipeline from one seed: a crop at a random place and a flip, which take
equally many numbers, agree. So of MindData's random operators there is one, the random-resized crop; all other numbers
are drawn here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np
from mindspore.dataset import vision
from PIL import Image, ImageEnhance

from mindspore_gpt4image.data.rand_augment import RandAugment, augment_batches

_FILTERS = {"bilinear": vision.Inter.LINEAR, "bicubic": vision.Inter.BICUBIC}


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image; see `AugmentConfig` for each value."""

    image_size: int
    crop: str = "random_resized"
    min_area: float = 0.08
    padding: int = 4
    fill: int = 0
    flip: float = 0.5
    color_jitter: float = 0.0
    interpolation: str = "bilinear"
    rand_augment: Optional[RandAugment] = None

    def operators(self) -> list:
        """MindData's C++ operators, from encoded bytes to uint8 pixels that `finish` takes."""
        size = (self.image_size, self.image_size)
        filter = _FILTERS[self.interpolation]
        if self.crop == "random_resized":
            return [vision.RandomCropDecodeResize(size, scale=(self.min_area, 1.0), interpolation=filter)]
        operators = [vision.Decode(), vision.Resize(size, filter)]
        if self.crop == "padded":
            operators.append(vision.Pad(self.padding, self.fill))
        return operators

    def finish(
        self, batches: Iterator[tuple[np.ndarray, ...]], seed: int, rows: int, first: int, threads: int
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Shift, flip, colour and RandAugment batches of `operators`' pixels, to uint8 [B, image_size, image_size, 3].

        Args:
            batches: (pixels, further columns).
            seed: what happens to row n of the pipeline depends on it and on n alone.
            rows: in the pipeline.
            first: number of the first row in `batches`.
        """
        batches = self._place(batches, seed, rows, first)
        if self.color_jitter > 0 or self.rand_augment is not None:
            batches = augment_batches(batches, self._recolour, seed, threads, first)
        return batches

    def _place(self, batches: Iterator, seed: int, rows: int, first: int) -> Iterator[tuple[np.ndarray, ...]]:
        random = np.random.default_rng(seed)
        flips = random.random(rows) < self.flip
        corners = random.integers(0, 2 * self.padding, (rows, 2), endpoint=True)
        size = self.image_size
        # A picture's bytes in the order of its mirror image, which NumPy would reverse three bytes at a time.
        mirror = np.arange(3 * size).reshape(size, 3)[::-1].ravel()
        for pixels, *columns in batches:
            numbers = range(first, first + len(pixels))
            if self.crop == "padded":
                corner = zip(pixels, corners[numbers])
                pixels = np.stack([image[y : y + size, x : x + size] for image, (y, x) in corner])
            lines = pixels.reshape(len(pixels), size, 3 * size)
            for row in np.flatnonzero(flips[numbers]):
                lines[row] = lines[row].take(mirror, axis=1)
            first += len(pixels)
            yield (pixels, *columns)

    def _recolour(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if self.color_jitter > 0:
            image = Image.fromarray(pixels)
            for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhancer(image).enhance(random.uniform(1 - self.color_jitter, 1 + self.color_jitter))
            pixels = np.asarray(image)
        return pixels if self.rand_augment is None else self.rand_augment(pixels, random)
