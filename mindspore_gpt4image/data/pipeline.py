"""Batches of uint8 pixels for training, augmented by MindData's C++ operators."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import vision
from tqdm import tqdm

from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.read_ahead import read_ahead
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.packed import PackedImages

# Encoded images in memory beyond those that MindData holds.
_READ_AHEAD = 64
# A thread reads so many at a time: handing over each one costs as much as reading it.
_BLOCK = 8
# A pipeline of MindData lasts this long. To start one takes a moment, to read one again takes its images.
SEGMENT_STEPS = 1000
# Most segments in an epoch, and most workers.
_SEGMENTS, _WORKERS = 16, 64


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


def train_batches(
    images: ImageSet,
    order: np.ndarray,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    workers: int,
    *,
    first_step: int = 0,
    columns: Sequence[str] = (),
    broken: set[int] | None = None,
) -> Iterator[tuple[np.ndarray, ...]]:
    """One epoch of (pixels uint8 [B, H, W, 3], positions int64 [B], further columns) in the given order.

    Pixels repeat for the same order, seed and number of workers. The positions travel with the pixels, so whatever is
    joined to a batch is joined to the images that are in it.

    MindData's random crop goes on from where it stands, so what a step gets depends on the steps before it. The epoch
    is cut into segments that begin afresh, lest a resumed run, or one that met a broken image, reads all of it again.

    Args:
        order: from `epoch_order`.
        seed: from `epoch_seed`, or epochs and ranks would draw the same numbers.
        workers: threads, at most 64.
        first_step: batches to leave out at the beginning; the rest is what it would be with them.
        columns: further fields of a packed data set's records.
        broken: positions of images that cannot be decoded. Another image of the epoch stands in for each, with its own
            position; any that are found on the way are added, with a note on standard error. None: they are an error.

    Raises:
        UserError: an image cannot be decoded; where it lies is told.
    """
    steps = len(order) // batch_size
    length = max(SEGMENT_STEPS, -(-steps // _SEGMENTS))
    for number, start in enumerate(range(0, steps, length)):
        stop = min(start + length, steps)
        step = max(first_step, start)
        while step < stop:
            segment = replace_broken(order, broken or ())[start * batch_size : stop * batch_size]
            segment_seed = seed + number * _WORKERS
            batches = _segment(images, segment, augmentation, batch_size, segment_seed, workers, step - start, columns)
            try:
                for batch in batches:
                    yield batch
                    step += 1
            except RuntimeError as error:
                found = _find_broken(images, segment[(step - start) * batch_size :], batch_size)
                if not found:
                    raise
                if broken is None:
                    raise UserError(f"{found[0][1]}, or set data.skip_broken=true") from error
                broken.update(position for position, _ in found)
                for _, fault in found:
                    tqdm.write(f"note: left out, another image takes its place: {fault}", file=sys.stderr)


def epoch_seed(seed: int, epoch: int, rank: int = 0, world_size: int = 1) -> int:
    """The seed of one rank's epoch, below 2^32; no other rank or epoch of the run has it or one near it.

    MindData seeds its worker n by adding n. So the lowest 10 bits are left free: 4 for segments, 6 for workers.
    """
    start = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return (start + epoch * world_size + rank) % (2**32 // (_SEGMENTS * _WORKERS)) * _SEGMENTS * _WORKERS


def replace_broken(order: np.ndarray, broken: Collection[int]) -> np.ndarray:
    """`order` with good images in the places of broken ones: each from half an epoch away, the next good one there.

    So it seldom comes twice in one batch, where its text would be its own negative.

    Raises:
        UserError: all are broken.
    """
    holes = np.flatnonzero(np.isin(order, list(broken)))
    if not len(holes):
        return order
    good = np.setdiff1d(np.arange(len(order)), holes)
    if not len(good):
        raise UserError(f"none of the {len(order)} images of this epoch can be decoded")
    order = order.copy()
    order[holes] = order[good[np.searchsorted(good, (holes + len(order) // 2) % len(order)) % len(good)]]
    return order


def _segment(
    images: ImageSet,
    order: np.ndarray,
    augmentation: Augmentation,
    batch_size: int,
    seed: int,
    workers: int,
    skip: int,
    columns: Sequence[str],
) -> Iterator[tuple[np.ndarray, ...]]:
    """Batches of the images in `order` but for the first `skip`, from one pipeline of MindData.

    It raises RuntimeError at a broken image.
    """
    ds.config.set_seed(seed)
    threads = min(workers, os.cpu_count() or 1, _WORKERS)
    names = ["image", "position", *columns]
    # The first numbers of each worker's operators are the same ones; they go to images that are thrown away.
    first = order[:threads]
    if isinstance(images.reader, PackedImages):
        dataset = _shards(images.reader, first, names, threads) + _shards(images.reader, order, names, threads)
    else:
        dataset = ds.GeneratorDataset(
            _EncodedImages(images, np.concatenate([first, order]), threads),
            names,
            shuffle=False,
            num_parallel_workers=1,
            python_multiprocessing=False,
        )
    dataset = dataset.map(augmentation.operators(), "image", num_parallel_workers=threads).project(names)
    dataset = dataset.skip(threads).batch(batch_size, drop_remainder=True)
    batches = islice(dataset.create_tuple_iterator(num_epochs=1, output_numpy=True), skip, None)
    return augmentation.finish(batches, seed, len(order), skip * batch_size, threads)


def _shards(reader: PackedImages, order: np.ndarray, names: list[str], threads: int) -> ds.Dataset:
    """What `_EncodedImages` gives, and further columns, read by MindData alone."""
    files = [str(file) for file in reader.files]
    return ds.MindDataset(files, names, num_parallel_workers=threads, sampler=ds.SubsetSampler(order.tolist()))


class _EncodedImages:
    """What MindData reads: (encoded bytes, position) of each image in order, read ahead by threads.

    MindData's own threads for Python sources wait for each other milliseconds an image.
    """

    def __init__(self, images: ImageSet, order: np.ndarray, threads: int):
        self.images, self.order, self.threads = images, order.tolist(), threads

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        blocks = [self.order[start : start + _BLOCK] for start in range(0, len(self.order), _BLOCK)]
        for positions, encoded in read_ahead(self._read, blocks, self.threads, _READ_AHEAD // _BLOCK):
            for position, data in zip(positions, encoded):
                yield np.frombuffer(data, np.uint8), np.array(position, np.int64)

    def _read(self, positions: list[int]) -> list[bytes]:
        return [self._encoded(position) for position in positions]

    def _encoded(self, position: int) -> bytes:
        data = self.images.encoded(position)
        # MindData takes what is left of a JPEG that was cut short for an image, or dies of it.
        if not _has_end(data):
            self.images.rgb(position)
        return data


def _has_end(data: bytes) -> bool:
    """Whether an encoded image ends as it should, bytes behind its end aside."""
    if data[:2] == b"P6":  # CIFAR's, which were never a file of their own
        return True
    if data[:2] == b"\xff\xd8":
        # A thumbnail inside has an end of its own, before the image's own scan.
        return data.endswith(b"\xff\xd9") or data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    return data.rfind(b"IEND") > 0


def _find_broken(images: ImageSet, order: np.ndarray, batch_size: int) -> list[tuple[int, str]]:
    """The first broken images in `order`, all that are in one batch, and what is wrong with each."""

    def fault(position: int) -> str | None:
        try:
            images.rgb(position)
            data = images.encoded(position)
        except UserError as error:
            return str(error)
        try:
            vision.Decode()(np.frombuffer(data, np.uint8))
        except RuntimeError:
            return f"{images.where(position)}: MindSpore cannot decode it, though Pillow can; save it anew"
        return None

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(order), batch_size):
            batch = np.unique(order[start : start + batch_size]).tolist()
            found = [(position, reason) for position, reason in zip(batch, pool.map(fault, batch)) if reason]
            if found:
                return found
    return []
