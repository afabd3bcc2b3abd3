"""What must hold before a run starts, checked in minutes and all at once.

Nothing is written into the run's folder.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mindspore_gpt4image.cluster import launcher_variables
from mindspore_gpt4image.config import Config
from mindspore_gpt4image.data.pipeline import steps_per_epoch
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.data.texts import packed_texts
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.evaluation.classification import predict
from mindspore_gpt4image.models import weights
from mindspore_gpt4image.runs import LAST, finished_summary
from mindspore_gpt4image.signals import StopRequest
from mindspore_gpt4image.sources.classes import read_classes
from mindspore_gpt4image.sources.descriptions import file_sha256
from mindspore_gpt4image.sources.formats import list_images, validation_split
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.training.loop import train_epoch
from mindspore_gpt4image.training.resume import read_last
from mindspore_gpt4image.training.setup import Run, set_up

_FIRST = 3


@dataclass
class Report:
    """What was found: lines for the screen, and which of them would make training fail."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def note(self, topic: str, text: str) -> None:
        self.lines.append(f"{topic:8} {text}")

    def fault(self, topic: str, text: str) -> None:
        self.lines.append(f"{topic:8} FAULT: {text}")
        self.faults.append(text)

    def show(self) -> None:
        """Print it; `UserError` with all faults if there are any."""
        print("\n".join(self.lines))
        if self.faults:
            raise UserError(f"training would fail: {'; '.join(self.faults)}")
        print("training can start")

    @contextmanager
    def told(self, topic: str) -> Iterator[None]:
        """A `UserError` in the block is a fault, and ends the block."""
        try:
            yield
        except UserError as error:
            self.fault(topic, str(error))


def check(config: Config, ranks: int = 1, report: Report | None = None) -> Report:
    """Find everything that would make training with this config on so many ranks fail, and say how large things are.

    All images are decoded, texts joined to them, and steps and an evaluation really run on one batch, in this process.

    Args:
        report: to go on with.
    """
    report = report or Report()
    train_set = _check_images(config, report)
    if config.loss.alignment == "none":
        report.note("texts", "none: a baseline")
    elif train_set is not None:
        _check_texts(config, train_set, report)
    _check_place(config, report)
    _check_ranks(config, ranks, train_set, report)
    if report.faults:
        report.note("step", "not tried, for the faults above")
    else:
        with report.told("step"):
            _check_step(set_up(config), ranks, report)
    return report


def _check_images(config: Config, report: Report) -> ImageSet | None:
    """Both splits, each image of them, and whether they have the same classes; returns the train split."""
    root, format = config.data.root, config.data.format
    sets = {}
    for topic in ("train", "val"):
        with report.told(topic):
            classes = read_classes(config.data.classes) if config.data.classes else None
            split = "train" if topic == "train" else validation_split(root, format)
            images = list_images(root, split, format=format, classes=classes)
            _describe(topic, images, report)
            _check_pixels(topic, images, config.data.skip_broken, report)
            sets[topic] = images
    if len(sets) == 2:
        train, val = (_classes_with_images(images) for images in sets.values())
        if unknown := sorted(val - train):
            report.fault("val", f"{len(unknown)} classes are not in train ({_first(unknown)})")
        if unseen := sorted(train - val):
            report.note("val", f"lacks {len(unseen)} classes of train ({_first(unseen)})")
    return sets.get("train")


def _describe(topic: str, images: ImageSet, report: Report) -> None:
    sizes = np.bincount(images.labels, minlength=len(images.classes))
    report.note(
        topic,
        f"{images.root}/{images.split}: {len(images):,} images, {len(images.classes):,} classes of "
        f"{sizes.min():,} to {sizes.max():,}",
    )
    for line in replace(images, broken={}).notes:
        report.note(topic, line)


def _check_pixels(topic: str, images: ImageSet, skip_broken: bool, report: Report) -> None:
    with tqdm(range(len(images)), desc=f"decoding {images.split}", unit="img", leave=False, disable=None) as positions:
        broken = [fault for _, fault in images.find_broken(positions)]
    if broken and skip_broken:
        report.note(topic, f"{len(broken)} broken images would be left out ({_first(broken)})")
    elif broken:
        report.fault(topic, f"{len(broken)} broken images ({_first(broken)})")


def _classes_with_images(images: ImageSet) -> set[str]:
    return {images.classes[label] for label in np.unique(images.labels)}


def _check_texts(config: Config, train_set: ImageSet, report: Report) -> None:
    """The store, and which images and texts find each other."""
    if config.data.embeddings is None:
        with report.told("texts"):
            facts = packed_texts(train_set, missing_text=config.data.missing_text).metadata
            report.note("texts", f"packed with the images: {facts['dim']} numbers each, by {facts['encoder']}")
        return
    with report.told("texts"):
        store = EmbeddingStore.open(config.data.embeddings)
        facts = store.metadata
        report.note(
            "texts",
            f"{store.path}: {len(store):,} {facts['text']} texts, {store.dim} numbers each, by {facts['encoder']}",
        )
        with report.told("texts"):
            if config.data.descriptions is not None:
                store.check_descriptions(file_sha256(config.data.descriptions), config.data.text)
        missing = [train_set.ids[position] for position in np.flatnonzero(store.locate(train_set.ids) < 0)]
        matched = len(train_set) - len(missing)
        report.note("join", f"{matched:,} of {len(train_set):,} training images have a text")
        if missing and (config.data.missing_text == "error" or not matched):
            report.fault("join", f"{len(missing):,} training images have no text in {store.path} ({_first(missing)})")
        of_split = [id for id in store.ids if id.startswith(f"{train_set.split}/")]
        if lonely := sorted(set(of_split) - set(train_set.ids)):
            report.note("join", f"{len(lonely):,} texts have no image ({_first(lonely)})")


def _check_place(config: Config, report: Report) -> None:
    """Whether the run's folder can be written, and what is there already."""
    if finished_summary(config):
        report.note("output", f"{config.output}: this run is finished, training has nothing to do")
    place = _existing(Path(config.output))
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        report.fault("output", f"{config.output}: cannot be written, {place} is no folder or not yours; choose output=")


def _check_ranks(config: Config, ranks: int, train_set: ImageSet | None, report: Report) -> None:
    """The cores of this machine, and whether the images are enough for a step on all ranks."""
    cores = os.cpu_count() or 1
    capped = f", of which {cores} are used, the number of cores" if config.data.workers > cores else ""
    report.note("ranks", f"{ranks} on {config.device}; data.workers={config.data.workers}{capped}")
    if names := launcher_variables(os.environ):
        report.note("ranks", f"{', '.join(names)}: set by some other launcher, and ignored")
    if train_set is not None:
        with report.told("ranks"):
            steps = steps_per_epoch(len(train_set), config.batch_size * config.accumulate, ranks)
            report.note("ranks", f"{steps:,} steps an epoch")


def _check_step(run: Run, ranks: int, report: Report) -> None:
    """Train some steps and evaluate a batch by the code of training, and see whether the checkpoints have room."""
    config = run.config
    run.progress.world_size = ranks
    if read_last(run) is not None:
        report.note("output", f"{run.folder}: training would go on from {LAST}")
    _check_disk(run, report)
    projection = f", {run.model.projection} projection to {run.model.text_dim}" if run.texts else ""
    parameters = sum(parameter.size for parameter in run.network.trainable_params())
    report.note("network", f"{run.model.network}: {parameters:,} parameters{projection}")

    run.train_set = _head(run.train_set, run.global_batch, run.progress.broken)
    seconds = []
    with tqdm(disable=True) as bar:
        for _ in range(3):  # the second still sets things up
            started = time.perf_counter()
            train_epoch(run, bar, StopRequest())
            seconds.append(time.perf_counter() - started)
            losses = run.progress.means(config.batch_size)
            run.progress.next_epoch()
            run.progress.epoch = 0
    text = f"cross-entropy {losses['ce']:.3f}" + (f", alignment {losses['align']:.3f}" if run.texts else "")
    report.note("step", f"compiled in {seconds[0]:.1f} s; then {run.global_batch / seconds[-1]:.1f} images/s, {text}")
    # A dynamic loss scale begins too high on purpose.
    if run.progress.skipped_in_a_row and run.step.loss_scale is None:
        report.fault("step", "the gradient is not finite; lower optimizer.lr or set clip_norm")
    run.classify.set_train(False)
    predict(run.classify.on_arrays, _head(run.val_set, config.batch_size), run.model.transform, config.batch_size, 1)
    report.note("val", "one batch evaluated")


def _check_disk(run: Run, report: Report) -> None:
    network = sum(parameter.nbytes for parameter in weights(run.network).values())
    last = network + sum(parameter.nbytes for parameter in run.step.state().values())
    # A new last.ckpt is whole before previous.ckpt goes; best.ckpt is the network alone.
    need, free = 3 * last + network, shutil.disk_usage(_existing(run.folder)).free
    text = f"checkpoints take {need / 1e6:,.0f} MB, {free / 1e9:,.1f} GB are free at {run.folder}"
    (report.note if free > need else report.fault)("disk", text)


def _head(images: ImageSet, count: int, broken: Sequence[int] = ()) -> ImageSet:
    """The beginning of a set, with `count` images that are not broken if there are as many."""
    good = np.setdiff1d(np.arange(len(images)), broken)[:count]
    count = max(count, good[-1] + 1)
    return replace(images, ids=images.ids[:count], labels=images.labels[:count])


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above that there is."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def _first(names: Sequence[str]) -> str:
    return f"first: {', '.join(names[:_FIRST])}" if len(names) > _FIRST else ", ".join(names)
