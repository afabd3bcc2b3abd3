"""What happens to a training image before it reaches the graph.

MindData starts every random operator of a pipeline from one seed. A padded crop and a flip, which take two numbers an
image each, then agree for good; a random-resized crop takes six and more, and agrees with a flip on the first image
alone, which `train_batches` throws away. So these two are MindData's, and whatever else is random draws from generators
of ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np
from mindspore.dataset import vision
from PIL import Image, ImageEnhance

from mindspore_gpt4image.data.rand_augment import RandAugment, augment_batches

# Bicubic is Pillow's, bit for bit, as in the recipes that ask for it. MindData has no bilinear like Pillow's.
_FILTERS = {"bilinear": vision.Inter.LINEAR, "bicubic": vision.Inter.PILCUBIC}


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
            operators = [vision.RandomCropDecodeResize(size, scale=(self.min_area, 1.0), interpolation=filter)]
        else:
            operators = [vision.Decode(), vision.Resize(size, filter)]
        if self.crop == "padded":
            operators.append(vision.Pad(self.padding, self.fill))
        if self.flip > 0:
            operators.append(vision.RandomHorizontalFlip(self.flip))
        return operators

    def finish(
        self, batches: Iterator[tuple[np.ndarray, ...]], seed: int, rows: int, first: int, threads: int
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Shift, colour and RandAugment batches of `operators`' pixels, to uint8 [B, image_size, image_size, 3].

        Args:
            batches: (pixels, further columns).
            seed: what happens to row n of the pipeline depends on it and on n alone.
            rows: in the pipeline.
            first: number of the first row in `batches`.
        """
        if self.crop == "padded":
            batches = self._shift(batches, seed, rows, first)
        if self.color_jitter > 0 or self.rand_augment is not None:
            batches = augment_batches(batches, self._recolour, seed, threads, first)
        return batches

    def _shift(self, batches: Iterator, seed: int, rows: int, first: int) -> Iterator[tuple[np.ndarray, ...]]:
        corners = np.random.default_rng(seed).integers(0, 2 * self.padding, (rows, 2), endpoint=True)
        size = self.image_size
        for pixels, *columns in batches:
            corner = zip(pixels, corners[first : first + len(pixels)])
            first += len(pixels)
            yield (np.stack([image[y : y + size, x : x + size] for image, (y, x) in corner]), *columns)

    def _recolour(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if self.color_jitter > 0:
            image = Image.fromarray(pixels)
            for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhancer(image).enhance(random.uniform(1 - self.color_jitter, 1 + self.color_jitter))
            pixels = np.asarray(image)
        return pixels if self.rand_augment is None else self.rand_augment(pixels, random)
