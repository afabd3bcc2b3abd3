"""Loading training images: ours against MindCV's loader and PyTorch's DataLoader, joined with texts, and packed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Optional

import mindspore.dataset as ds
import numpy as np
from mindcv.data import create_dataset, create_loader, create_transforms

from mindspore_gpt4image.benchmark.measure import Comparison, comparison_of, measure_in_turns
from mindspore_gpt4image.benchmark.pictures import write_pictures
from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.pack import pack
from mindspore_gpt4image.data.pipeline import epoch_seed, train_batches
from mindspore_gpt4image.data.store import EmbeddingStore, write_store
from mindspore_gpt4image.data.texts import Texts, join_texts, packed_texts
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.image_set import ImageSet

SIDE, BATCH, WORKERS = 224, 32, 2
TEXT_DIM = 512
MAX_SIDE = 400
# Batches before the clock starts: threads and processes come up, queues fill.
_WARM_UP = 3


class Loader:
    """One way of loading an epoch; what it measured is kept, a number a run.

    Args:
        measure: loads an epoch; images a second and CPU milliseconds an image.
    """

    def __init__(self, measure: Callable[[], tuple[float, float]]):
        self._measure = measure
        self.speed: list[float] = []
        self.cpu: list[float] = []

    def __call__(self) -> float:
        speed, cpu = self._measure()
        self.speed.append(speed)
        self.cpu.append(cpu)
        return speed

    def against(
        self, peer: Loader, name: str, runs: int, *, goal: Optional[float] = None, cpu_goal: Optional[float] = None
    ) -> Iterator[Comparison]:
        """Two rows: speed (`goal`: at least), and CPU time an image (`cpu_goal`: at most)."""
        for loader in (self, peer):
            loader.speed, loader.cpu = [], []
        ours, theirs = measure_in_turns(self, peer, runs)
        yield comparison_of(name, ours, theirs, unit="img/s", goal=goal, better="higher")
        cpu = np.array(self.cpu), np.array(peer.cpu)
        yield comparison_of(f"{name}, CPU an image", *cpu, unit="ms", goal=cpu_goal)


def comparisons(quick: bool) -> Iterator[Comparison]:
    """Rows on synthetic JPEG files of ImageNet's size, with the augmentation of ResNet's recipe.

    Quick: fewer images and runs.
    """
    return measured(*((768, 5) if quick else (1024, 25)))


def measured(count: int, runs: int) -> Iterator[Comparison]:
    """The rows of `comparisons` on `count` images."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, "pictures")
        write_pictures(root, count)
        folder = list_images(root, "train")
        store = _write_store(Path(temporary, "short.mindrecord"), folder.ids)
        packed = _pack(root, Path(temporary, "packed"), store)
        smaller = _pack(root, Path(temporary, "smaller"), store, MAX_SIDE)

        of = f"{SIDE} px, {WORKERS} workers"
        ours = Loader(lambda: timed(our_batches(folder)))
        mindcv = Loader(lambda: timed(mindcv_batches(root)))
        yield from ours.against(mindcv, f"folder against MindCV's loader, {of}", runs, goal=1.15, cpu_goal=1 / 1.15)
        if importlib.util.find_spec("torch"):
            pytorch = Loader(lambda: torch_loader(root))
            yield from ours.against(pytorch, f"folder against PyTorch's, {of}", runs, goal=2.5)
        else:
            print("note: torch is not installed, so PyTorch's DataLoader is left out", file=sys.stderr)
        texts = join_texts(folder, EmbeddingStore.open(store))
        joined = Loader(lambda: timed(our_batches(folder, texts)))
        yield from joined.against(ours, "joined with texts against without", runs, goal=0.97)
        shards = Loader(lambda: timed(our_batches(packed, packed_texts(packed))))
        yield from shards.against(joined, "packed against folder, both with texts", runs, goal=1.0)
        small = Loader(lambda: timed(our_batches(smaller, packed_texts(smaller))))
        yield from small.against(joined, f"packed at {MAX_SIDE} px against folder", runs, goal=1.3)
        decoding = Loader(lambda: timed(decoded(folder)))
        yield from decoding.against(ours, "reading and decoding the crops alone against all of ours", runs)


def timed(batches: Iterable[Any]) -> tuple[float, float]:
    """Images a second and CPU milliseconds of this process an image, after the first batches."""
    batches = iter(batches)
    for _ in islice(batches, _WARM_UP):
        pass
    started, cpu = time.perf_counter(), time.process_time()
    images = sum(len(batch[0]) for batch in batches)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return images / seconds, 1000 * cpu / images


def our_batches(images: ImageSet, texts: Texts | None = None) -> Iterator[tuple]:
    """What a training step gets but for the labels."""
    order = np.random.default_rng(0).permutation(len(images))
    columns = texts.columns if texts else ()
    batches = train_batches(images, order, Augmentation(SIDE), BATCH, epoch_seed(0, 0), WORKERS, columns=columns)
    for pixels, positions, *more in batches:
        yield (pixels, *(texts.batch(positions, 0, *more) if texts else ()))


def mindcv_batches(root: Path) -> Iterator[tuple]:
    """MindCV's loader with its ImageNet transforms, as its train.py builds it."""
    dataset = create_dataset("imagenet", str(root), "train", shuffle=True, num_parallel_workers=WORKERS)
    loader = create_loader(
        dataset,
        BATCH,
        drop_remainder=True,
        is_training=True,
        transform=create_transforms("imagenet", image_resize=SIDE, is_training=True),
        num_parallel_workers=WORKERS,
    )
    return loader.create_tuple_iterator(num_epochs=1, output_numpy=True)


def decoded(images: ImageSet) -> Iterator[tuple]:
    """The crops of JPEG files, read and decoded by MindData as in training, and next to nothing else: a pixel each."""
    dataset = ds.ImageFolderDataset(str(images.root / images.split), num_parallel_workers=WORKERS)
    crop = Augmentation(1, flip=0).operators()
    dataset = dataset.map(crop, "image", num_parallel_workers=WORKERS).batch(BATCH, drop_remainder=True)
    return dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)


def torch_loader(root: Path) -> tuple[float, float]:
    """As `timed`, of PyTorch's DataLoader in a process of its own, which forks the workers."""
    command = [sys.executable, "-m", "mindspore_gpt4image.benchmark.torch_loader", str(root)]
    command += map(str, (SIDE, BATCH, WORKERS, _WARM_UP))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout))


def _write_store(path: Path, ids: list[str]) -> Path:
    rows = np.random.default_rng(0).standard_normal((len(ids), TEXT_DIM), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    made_from = {"encoder": "random", "text": "short", "truncated": 0, "descriptions_sha256": "0" * 64}
    write_store(path, ids, range(len(ids)), rows, made_from)
    return path


def _pack(root: Path, output: Path, store: Path, max_side: Optional[int] = None) -> ImageSet:
    with redirect_stderr(StringIO()):  # its progress would come between the rows
        pack(root, output, ("train",), embeddings=store, max_side=max_side, workers=WORKERS)
    return list_images(output, "train")
