"""Saving a run so that it can go on, and going on."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Optional

from mindspore_gpt4image.checkpoint import Checkpoint, load_parameters, read_checkpoint, save_checkpoint
from mindspore_gpt4image.config import differences
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import atomic_write
from mindspore_gpt4image.models import weights
from mindspore_gpt4image.runs import BEST, LAST, METRICS, PLACES, PREVIOUS
from mindspore_gpt4image.training.progress import Progress
from mindspore_gpt4image.training.setup import Run

# What may differ between a stopped run and its continuation; anything else would make another experiment of it.
FREE_TO_CHANGE = PLACES | {"epochs"}


def save_last(run: Run) -> None:
    """Write `last.ckpt`: all that the next step depends on, in which the ranks do not differ; keep the one before."""
    if not run.is_main:
        return
    if run.last_is_whole:
        keep_previous(run.folder)
    save_checkpoint(run.folder / LAST, run.network, run.model, run.progress.to_dict(), run.step.state())
    run.last_is_whole = True


def save_best(run: Run) -> None:
    """Write `best.ckpt`: the network and its moving average, without moments."""
    if not run.is_main:
        return
    averages = {parameter.name: parameter for parameter in run.step.ema}
    save_checkpoint(run.folder / BEST, run.network, run.model, run.progress.to_dict(), averages)


def keep_previous(folder: Path) -> None:
    """Give the present `last.ckpt` the name `previous.ckpt` too, so that there is a whole checkpoint at any moment."""
    new = folder / f".{PREVIOUS}"
    # Some file systems have no hard links; a run does not stop for want of a second checkpoint.
    with suppress(OSError):
        new.unlink(missing_ok=True)
        os.link(folder / LAST, new)
        new.replace(folder / PREVIOUS)


def resume(run: Run) -> None:
    """Take weights, moments and progress from `last.ckpt`, if there is one, and go on as if the run had not stopped.

    Raises:
        UserError: see `read_last`.
    """
    if run.is_main:
        remove_rubbish(run.folder)
    checkpoint = read_last(run)
    if checkpoint is None:
        if run.is_main:
            cut_metrics(run.folder / METRICS, 0)
        return
    saved = Progress(**checkpoint.progress)
    load_parameters(weights(run.network), checkpoint.network, checkpoint.path)
    load_parameters(run.step.state(), checkpoint.training, checkpoint.path)
    run.step.keep_statistics()
    saved.config = run.progress.config
    run.progress = saved
    if run.is_main:
        cut_metrics(run.folder / METRICS, saved.epoch)


def remove_rubbish(folder: Path) -> None:
    """Remove what kills in the middle of a save left behind."""
    for name in (LAST, PREVIOUS, BEST):
        for path in folder.glob(f".{Path(name).stem}.*"):
            path.unlink()


def read_last(run: Run) -> Optional[Checkpoint]:
    """The run's `last.ckpt`, if there is one; where it is damaged, `previous.ckpt`, with a note.

    Raises:
        UserError: neither can be read, or it is of another experiment; the settings that differ are named.
    """
    if not (run.folder / LAST).exists():
        return None
    checkpoint = read_whole(run)
    saved = Progress(**checkpoint.progress)
    changed = {
        key: values
        for key, values in differences(saved.config, run.progress.config).items()
        if key not in FREE_TO_CHANGE
    }
    if saved.train_images != run.progress.train_images:
        changed["the number of training images"] = (saved.train_images, run.progress.train_images)
    elif saved.world_size != run.progress.world_size:
        changed["the number of ranks"] = (saved.world_size, run.progress.world_size)
    elif checkpoint.model != run.model:
        changed["the model"] = (checkpoint.model, run.model)
    for key, old in (saved.texts or {}).items():
        new = (run.progress.texts or {}).get(key)
        if new != old:
            changed[f"the embedding store's {key}"] = (old, new)
    if changed:
        listed = ", ".join(f"{key} was {old} and is {new}" for key, (old, new) in changed.items())
        raise UserError(
            f"{checkpoint.path}: was trained with other settings ({listed}); set them back, or choose another output="
        )
    return checkpoint


def read_whole(run: Run) -> Checkpoint:
    """`last.ckpt`, or where it is damaged, `previous.ckpt`; `UserError` where both are."""
    try:
        last = _read_of_training(run.folder / LAST)
        run.last_is_whole = True
        return last
    except UserError as error:
        try:
            previous = _read_of_training(run.folder / PREVIOUS)
        except UserError as other:
            raise UserError(f"{error}; {other}; to begin again remove {run.folder}") from error
        if run.is_main:
            print(f"note: {error}; going on from {PREVIOUS}, the one before", file=sys.stderr)
        return previous


def _read_of_training(path: Path) -> Checkpoint:
    checkpoint = read_checkpoint(path)
    try:
        Progress(**checkpoint.progress)
    except TypeError as error:
        raise UserError(f"checkpoint {path}: does not say where a training stood") from error
    return checkpoint


def cut_metrics(path: Path, epochs: int) -> None:
    """Drop the lines of epochs that will be repeated: a kill may have come between the line and its checkpoint."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        if len(lines) > epochs:
            atomic_write(path, "".join(lines[:epochs]))


def append_metrics(path: Path, metrics: dict) -> None:
    """Add one epoch's line to `metrics.jsonl`; `UserError` where it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
