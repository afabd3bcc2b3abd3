"""Batches of uint8 pixels for evaluation and prediction, made by Pillow alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.preprocessing import EvalTransform


def evaluation_batches(
    images: ImageSet, positions: np.ndarray, transform: EvalTransform, batch_size: int, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of (pixels uint8 [B, crop, crop, 3], positions int64 [b]) in order, with b < B only in the last one.

    The last batch is filled up with zeros, so that every batch has one shape and a compiled graph serves them all;
    whoever reads results takes the first b rows.

    Raises:
        UserError: an image cannot be read; its path is named.
    """

    def pixels(position: int) -> np.ndarray:
        return transform(images.rgb(position))

    chunks = [positions[start : start + batch_size] for start in range(0, len(positions), batch_size)]
    with ThreadPoolExecutor(min(workers, os.cpu_count() or 1)) as pool:
        waiting = [pool.map(pixels, chunk) for chunk in chunks[:1]]
        for number, chunk in enumerate(chunks):
            # The next batch is read while the device works on this one.
            waiting += [pool.map(pixels, following) for following in chunks[number + 1 : number + 2]]
            batch = np.zeros((batch_size, transform.crop, transform.crop, 3), np.uint8)
            batch[: len(chunk)] = list(waiting.pop(0))
            yield batch, chunk
