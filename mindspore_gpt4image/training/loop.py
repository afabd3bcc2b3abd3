"""The training loop: steps, evaluation after each epoch, checkpoints, records."""

from __future__ import annotations

import itertools
import signal
import sys
import time
from contextlib import nullcontext
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from tensorboardX import SummaryWriter
from tqdm import tqdm

from mindspore_gpt4image import distributed
from mindspore_gpt4image.config import Config, save_config
from mindspore_gpt4image.data.pipeline import epoch_order, epoch_seed, train_batches
from mindspore_gpt4image.distributed import copy_from_rank_0, on_any_rank
from mindspore_gpt4image.errors import Stopped, UserError
from mindspore_gpt4image.evaluation.on_ranks import predict_on_ranks
from mindspore_gpt4image.files import claimed, write_json
from mindspore_gpt4image.runs import CONFIG, LOCK, METRICS, SUMMARY, read_metrics
from mindspore_gpt4image.signals import StopRequest
from mindspore_gpt4image.training.diagnostics import summarise, totals
from mindspore_gpt4image.training.mixing import UNMIXED, draw_boxes
from mindspore_gpt4image.training.resume import append_metrics, resume, save_best, save_last
from mindspore_gpt4image.training.setup import Run, set_up

# Steps in a row with a gradient that is not finite, after which a run gives up. A dynamic loss scale is down at 1 by
# then.
MOST_SKIPPED_STEPS = 20


def train(config: Config, stop: StopRequest | None = None) -> dict[str, Any]:
    """Train to the end, from the start or from where `last.ckpt` in the run's folder stands.

    In a group of ranks (`distributed.join_world`) every rank calls this; rank 0 shows progress and writes the files.

    Args:
        stop: looked at after every step; a signal in it, on any rank, ends the run there, with its state saved.

    Returns:
        The contents of `summary.json`.

    Raises:
        UserError: a mistake in the config or the data, training that does not recover from non-finite gradients, or
            another process that trains in the run's folder.
        Stopped: `stop` asked for it.
    """
    run = set_up(config)
    with claimed(run.folder / LOCK) if run.is_main else nullcontext():
        return _train(run, stop or StopRequest())


def _train(run: Run, stop: StopRequest) -> dict[str, Any]:
    config = run.config
    resume(run)
    if run.is_main:
        for line in (*run.train_set.notes, *run.val_set.notes):
            print(f"note: {line}", file=sys.stderr)
        save_config(config, run.folder / CONFIG)
        run.model.save(run.folder / "model.yaml")
    bar = tqdm(
        total=config.epochs * run.steps_per_epoch * run.global_batch,
        initial=run.steps_done * run.global_batch,
        desc=run.folder.name,
        unit="img",
        unit_scale=True,
        dynamic_ncols=True,
        disable=not run.is_main,
    )
    events = SummaryWriter(str(run.folder), purge_step=run.progress.epoch + 1, write_to_disk=run.is_main)
    with bar, events:
        while run.progress.epoch < config.epochs:
            train_epoch(run, bar, stop)
            finish_epoch(run, bar, events)
    return write_summary(run)


def train_epoch(run: Run, bar: tqdm, stop: StopRequest) -> None:
    """Take the steps that are left of the present epoch."""
    config, progress = run.config, run.progress
    rank, world_size = distributed.rank(), distributed.world_size()
    rows = config.batch_size * config.accumulate
    order = epoch_order(len(run.train_set), rows, config.seed, progress.epoch, rank, world_size, config.augment.repeats)
    # Of the network's own randomness and of mixing. Neither epochs nor ranks may share it.
    seed = int(np.random.SeedSequence([config.seed, progress.epoch, rank]).generate_state(1)[0] >> 1)
    broken = set(progress.broken)
    batches = train_batches(
        run.train_set,
        order,
        run.augmentation,
        config.batch_size,
        epoch_seed(config.seed, progress.epoch, rank, world_size),
        config.data.workers,
        first_step=progress.step * config.accumulate,
        columns=run.texts.columns if run.texts else (),
        broken=broken if config.data.skip_broken else None,
    )
    run.network.set_train(True)
    started = time.perf_counter()
    batches = enumerate(batches, start=progress.step * config.accumulate)
    is_ready = world_size == 1
    while micro_batches := list(itertools.islice(batches, config.accumulate)):
        lr = run.learning_rate
        inputs = [step_inputs(run, seed, number, *batch) for number, batch in micro_batches]
        if not is_ready:
            get_ready(run, inputs[0])
            is_ready = True
        result = take_step(run, inputs, lr, stop)
        now = time.perf_counter()
        progress.add_step(result, now - started)
        started = now
        bar.set_postfix_str(_status(run), refresh=False)
        bar.update(run.global_batch)
        if progress.skipped_in_a_row > MOST_SKIPPED_STEPS:
            ce, align = progress.last_losses
            raise UserError(
                f"{run.folder}: the gradient was not finite for {progress.skipped_in_a_row} steps in a row, up to step "
                f"{progress.step} of epoch {progress.epoch + 1} at optimizer.lr={lr:g} (last finite losses: "
                f"cross-entropy {ce:.4g}, alignment {align:.4g}); lower optimizer.lr or set clip_norm"
            )
        if result[4] > 0:
            progress.broken = on_any_rank(broken, len(run.train_set))
            save_last(run)
            # A launcher ends all ranks when the first one exits, and rank 0 must have saved by then.
            distributed.wait_for_ranks()
            raise Stopped(stop.signum or signal.SIGTERM)
    progress.broken = on_any_rank(broken, len(run.train_set))


def step_inputs(
    run: Run, seed: int, number: int, pixels: np.ndarray, positions: np.ndarray, *columns: np.ndarray
) -> list[Tensor | None]:
    """What `TrainStep` and `Diagnostics` take of one micro-batch, from `random_state` on.

    Args:
        seed: of this epoch and rank.
        number: of the micro-batch in the epoch.
        pixels, positions, columns: from `train_batches`.
    """
    config, random = run.config, np.random.default_rng([seed, number])
    text_emb, text_id = run.texts.batch(positions, distributed.rank(), *columns) if run.texts else (None, None)
    mix = boxes = None
    if run.mixing is not None:
        off = config.augment.mix_off_epoch
        is_off = off is not None and run.progress.epoch >= off
        mix = UNMIXED if is_off else run.mixing.draw(random, config.model.image_size)
    if config.augment.erasing > 0:
        boxes = draw_boxes(random, len(positions), config.model.image_size, config.augment.erasing)
    random_state = np.array([seed, number], np.int32)
    arrays = (random_state, pixels, run.train_set.labels[positions], text_emb, text_id, mix, boxes)
    return [None if array is None else Tensor(array) for array in arrays]


def get_ready(run: Run, micro_batch: list[Tensor | None]) -> None:
    """Compile what steps run, if it is not yet, and return when all ranks have.

    Compiling takes one rank longer than another, and so does rank 0's saving: longer than collectives on CPU wait.
    """
    if run.diagnostics is not None:
        run.diagnostics.compile(*micro_batch)
    run.step.compile(*_with_flags(micro_batch, lr=0.0, stop=False, last=True))
    distributed.wait_for_ranks()


def take_step(run: Run, micro_batches: list[list[Tensor | None]], lr: float, stop: StopRequest) -> np.ndarray:
    """One step of the optimizer; returns what `TrainStep` does, losses and right answers averaged."""
    progress, every = run.progress, run.config.diagnostics
    if run.diagnostics is not None and run.steps_done % every == 0:
        sums = run.diagnostics(*micro_batches[0]).asnumpy()
        progress.add_look(totals(sums, run.config.batch_size * distributed.world_size()))
    results = []
    for number, micro_batch in enumerate(micro_batches, start=1):
        is_last = number == len(micro_batches)
        asked_to_stop = is_last and stop.signum is not None
        results.append(run.step(*_with_flags(micro_batch, lr, asked_to_stop, is_last)).asnumpy())
    return np.array([*np.mean(results, axis=0)[:3], *results[-1][3:]])


def _with_flags(micro_batch: list[Tensor | None], lr: float, stop: bool, last: bool) -> list[Tensor | None]:
    """The inputs of `TrainStep`."""
    random_state, *inputs = micro_batch
    return [Tensor(lr, ms.float32), random_state, Tensor(stop, ms.float32), Tensor(last), *inputs]


def finish_epoch(run: Run, bar: tqdm, events: SummaryWriter) -> None:
    """Evaluate on the validation split, record the epoch, save the checkpoints."""
    config, progress = run.config, run.progress
    started = time.perf_counter()
    run.classify.set_train(False)
    # Each rank has BatchNorm statistics of its own; those of rank 0 are evaluated and saved.
    copy_from_rank_0([*run.step.statistics, *run.step.averaged_statistics])
    run.step.keep_statistics()
    results = evaluate_epoch(run)
    metrics = {
        "epoch": progress.epoch + 1,
        "lr": float(run.step.optimizer.learning_rate.asnumpy()),
        **{f"train_{name}": value for name, value in progress.means(config.batch_size).items()},
        **summarise(progress.looks),
        **results,
        **({} if run.step.loss_scale is None else {"loss_scale": float(run.step.loss_scale.value.asnumpy())}),
        "skipped_steps": progress.skipped,
        "broken_images": len(progress.broken),
        "images_per_second": progress.step * run.global_batch / progress.train_seconds,
    }
    if run.is_main:
        append_metrics(run.folder / METRICS, metrics)
    for name, value in metrics.items():
        if name != "epoch":
            events.add_scalar(name.replace("_", "/", 1), value, metrics["epoch"])
    if metrics["val_top1"] > progress.best_top1 and np.isfinite(metrics["val_ce"]):
        progress.best_top1, progress.best_epoch = metrics["val_top1"], metrics["epoch"]
        save_best(run)
    bar.set_postfix_str(f"{_status(run)}, val top-1 {metrics['val_top1']:.2f}")
    progress.next_epoch()
    progress.seconds += time.perf_counter() - started
    save_last(run)


def evaluate_epoch(run: Run) -> dict[str, float]:
    """Cross-entropy, top-1 and top-5 on the validation split, of the weights and of their moving average if there is
    one (`…_ema`).
    """

    def evaluate(suffix: str) -> dict[str, float]:
        config = run.config
        predictions = predict_on_ranks(
            run.classify.on_arrays, run.val_set, run.model.transform, config.batch_size, config.data.workers
        )
        return {
            f"val_ce{suffix}": predictions.cross_entropy,
            f"val_top1{suffix}": predictions.accuracy(1),
            f"val_top5{suffix}": predictions.accuracy(5),
        }

    results = evaluate("")
    if run.config.ema is not None:
        run.step.swap_averages()
        results.update(evaluate("_ema"))
        run.step.swap_averages()
    return results


def write_summary(run: Run) -> dict[str, Any]:
    """Write `summary.json`: the last epoch's results, the best epoch's marked as selected on the validation split."""
    if not run.is_main:
        return {}
    epochs = read_metrics(run.folder / METRICS)
    last = epochs[-1]
    summary = {
        "split": run.val_set.split,
        "top1": last["val_top1"],
        "top5": last["val_top5"],
        "best_top1": run.progress.best_top1,
        "best_epoch": run.progress.best_epoch,
        "best_is_selected_on": run.val_set.split,
        **{f"{name}_ema": last[f"val_{name}_ema"] for name in ("top1", "top5") if f"val_{name}_ema" in last},
        "ce": last["train_ce"],
        "align": last["train_align"],
        "epochs": run.progress.epoch,
        "seed": run.config.seed,
        "world_size": run.progress.world_size,
        "seconds": run.progress.seconds,
        "images_per_second": float(np.median([epoch["images_per_second"] for epoch in epochs])),
        "skipped_steps": sum(epoch["skipped_steps"] for epoch in epochs),
        "broken_images": len(run.progress.broken),
        "deployed_parameters": sum(parameter.size for parameter in run.classify.classifier.trainable_params()),
    }
    write_json(run.folder / SUMMARY, summary)
    return summary


def _status(run: Run) -> str:
    """Where the present epoch stands, for the progress bar."""
    means = run.progress.means(run.config.batch_size)
    align = f", align {means['align']:.3f}" if run.texts else ""
    return f"epoch {run.progress.epoch + 1}/{run.config.epochs}, CE {means['ce']:.3f}{align}, top-1 {means['top1']:.1f}"
