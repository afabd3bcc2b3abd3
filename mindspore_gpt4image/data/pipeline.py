"""Batches of uint8 pixels for training, augmented by MindData's C++ operators."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import mindspore.dataset as ds
import numpy as np

from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.rand_augment import augment_batches
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.image_set import ImageSet

# Encoded images in memory beyond those that MindData holds.
_READ_AHEAD = 64


def epoch_order(
    count: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1, repeats: int = 1
) -> np.ndarray:
    """Positions of the images that this rank sees in one epoch, int64 [steps · batch_size], in their order.

    All images are shuffled by (seed, epoch); step s of the epoch takes the next world_size · batch_size of them, rank r
    every world_size-th from the r-th. So no image comes twice, what does not fill a last batch is left out, and R ranks
    of B images see together what one process with batches of R · B sees.

    With `repeats` each image stands that many times in a row in the shuffled list, of which an epoch of as many steps
    takes the beginning: repeated augmentation (Hoffer et al., 2020) as DeiT's sampler deals it, an image's copies to
    different ranks.

    Raises:
        UserError: there are fewer images than a global batch.
    """
    steps = steps_per_epoch(count, batch_size, world_size)
    order = np.random.default_rng([seed, epoch]).permutation(count).repeat(repeats)[: steps * batch_size * world_size]
    return order.reshape(-1, world_size)[:, rank]


def steps_per_epoch(count: int, batch_size: int, world_size: int) -> int:
    """Full global batches in `count` images."""
    steps = count // (batch_size * world_size)
    if steps == 0:
        raise UserError(
            f"batch_size={batch_size} on {world_size} rank(s) needs {batch_size * world_size} images, "
            f"the train split has {count}"
        )
    return steps


class _EncodedImages:
    """What MindData reads: (encoded bytes, position) of each image in order, read ahead by threads.

    MindData's own threads for Python sources wait for each other milliseconds an image.
    """

    def __init__(self, images: ImageSet, order: np.ndarray, threads: int):
        self.images, self.order, self.threads = images, order.tolist(), threads

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        waiting: deque[tuple[int, Future]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for position in self.order:
                waiting.append((position, pool.submit(self.images.encoded, position)))
                if len(waiting) == _READ_AHEAD:
                    yield self._first(waiting)
            while waiting:
                yield self._first(waiting)

    @staticmethod
    def _first(waiting: deque) -> tuple[np.ndarray, np.ndarray]:
        position, data = waiting.popleft()
        return np.frombuffer(data.result(), np.uint8), np.array(position, np.int64)


def train_batches(
    images: ImageSet, order: np.ndarray, augmentation: Augmentation, batch_size: int, seed: int, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One epoch of (pixels uint8 [B, H, W, 3], positions int64 [B]) in the given order.

    Pixels repeat for the same order, seed and number of workers. The positions travel with the pixels, so whatever is
    joined to a batch is joined to the images that are in it.

    Args:
        order: from `epoch_order`, or a tail of it.
        seed: must differ between epochs and between ranks, or they would draw the same crops.

    Raises:
        UserError: an image cannot be read; its path is named.
    """
    ds.config.set_seed(seed)
    threads = min(workers, os.cpu_count() or 1)
    dataset = ds.GeneratorDataset(
        _EncodedImages(images, order, threads),
        ["image", "position"],
        shuffle=False,
        num_parallel_workers=1,
        python_multiprocessing=False,
    )
    dataset = dataset.map(augmentation.operators(), "image", num_parallel_workers=threads)
    dataset = dataset.batch(batch_size, drop_remainder=True)
    batches = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    if augmentation.rand_augment is not None:
        batches = augment_batches(batches, augmentation.rand_augment, seed, threads)
    try:
        yield from batches
    except RuntimeError as error:
        broken = images.find_broken(order.tolist())
        if broken:
            more = f" ({len(broken)} such images in this epoch)" if len(broken) > 1 else ""
            raise UserError(broken[0][1] + more) from error
        raise
