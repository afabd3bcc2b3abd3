"""The alignment loss alone, as one rank of many computes it, against the released all-to-all formula.

No ranks are started: every rank is taken to hold the same rows, so that what a collective would bring is a copy.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Callable, Optional

import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_gpt4image.benchmark.measure import Comparison, compare, milliseconds
from mindspore_gpt4image.device import use_device
from mindspore_gpt4image.losses import GPT4ImageLoss, image_to_text, normalize

TEXT_DIM = 512
TEMPERATURE = 0.5


def comparisons(quick: bool) -> Iterator[Comparison]:
    """N = 4096 on 8 ranks, with goals; then from 1 to 64 ranks of 64 rows (quick: time alone, memory measured once)."""
    yield _compare_time(ranks=8, batch=512, runs=11 if quick else 51, goal=0.25)
    yield _compare_memory(ranks=8, batch=512, runs=1 if quick else 5, goal=0.25)
    for ranks in (1, 2, 4, 8, 16, 32, 64):
        yield _compare_time(ranks, batch=64, runs=5 if quick else 21)
        if not quick:
            yield _compare_memory(ranks, batch=64, runs=1)


def _compare_time(ranks: int, batch: int, runs: int, goal: Optional[float] = None) -> Comparison:
    ours, released = (milliseconds(work_of(rank(ranks), batch)) for rank in (OurRank, ReleasedRank))
    return compare(f"time of {_name(ranks, batch)}", ours, released, unit="ms", runs=runs, goal=goal)


def _compare_memory(ranks: int, batch: int, runs: int, goal: Optional[float] = None) -> Comparison:
    ours, released = (partial(peak_mebibytes, rank, ranks, batch) for rank in (OurRank, ReleasedRank))
    return compare(f"memory of {_name(ranks, batch)}", ours, released, unit="MiB", runs=runs, goal=goal)


def _name(ranks: int, batch: int) -> str:
    return f"clip alignment against all-to-all, {ranks} x {batch} rows"


class OurRank(GPT4ImageLoss):
    """`GPT4ImageLoss`'s own symmetric alignment on one of `ranks` ranks: B·N work.

    Inputs:
        image_emb, text_emb: float32 [B, k].
    """

    def __init__(self, ranks: int):
        super().__init__("clip", temperature=TEMPERATURE)
        self.ranks = ranks

    def gather(self, x: Tensor) -> Tensor:
        return repeat(ops.stop_gradient(x), self.ranks)

    def construct(self, image_emb, text_emb):
        return self.align(image_emb, text_emb, None, None)


class ReleasedRank(nn.Cell):
    """The released code's symmetric loss on one of `ranks` ranks: all images with all texts, N·N work.

    Made of the same functions as ours, which take less time and memory than MindSpore's cross-entropy.

    Inputs:
        image_emb, text_emb: float32 [B, k].
    """

    def __init__(self, ranks: int):
        super().__init__()
        self.ranks = ranks

    def construct(self, image_emb, text_emb):
        images = normalize(image_emb)
        if self.ranks > 1:
            # Its own rows are live among those of the others.
            images = ops.concat((images, repeat(ops.stop_gradient(images), self.ranks - 1)))
        texts = repeat(text_emb, self.ranks)
        similarity = ops.matmul(images, texts.swapaxes(0, 1)) * (1 / TEMPERATURE)
        positive = (images * texts).sum(axis=1) * (1 / TEMPERATURE)
        rows = image_to_text(similarity, positive) + image_to_text(similarity.swapaxes(0, 1), positive)
        return rows.mean() * 0.5


def repeat(x: Tensor, times: int) -> Tensor:
    """x, [B, …], below itself: [times · B, …]."""
    return ops.tile(x, (times,) + (1,) * (x.ndim - 1))


class ValueAndGradient(nn.Cell):
    """The loss, and its gradient with respect to the images' embeddings."""

    def __init__(self, loss: nn.Cell):
        super().__init__()
        self.gradient = ops.value_and_grad(loss, 0)

    def construct(self, image_emb, text_emb):
        return self.gradient(image_emb, text_emb)


def random_embeddings(batch: int) -> tuple[Tensor, Tensor]:
    """Image embeddings and normalised text embeddings, float32 [B, k], the same at every call."""
    random = np.random.default_rng(0)
    images, texts = random.standard_normal((2, batch, TEXT_DIM), np.float32)
    return Tensor(images), Tensor(texts / np.linalg.norm(texts, axis=1, keepdims=True))


def work_of(loss: nn.Cell, batch: int) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
    """A function that computes value and gradient of `loss` on random rows."""
    objective, embeddings = ValueAndGradient(loss), random_embeddings(batch)
    return lambda: tuple(result.asnumpy() for result in objective(*embeddings))


def peak_mebibytes(rank: type[nn.Cell], ranks: int, batch: int) -> float:
    """Memory that the work of a rank needs at its peak, measured in a process of its own (Linux)."""
    # Spawned, since MindSpore's threads do not live on in a fork.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak_mebibytes, rank, ranks, batch).result()


def _peak_mebibytes(rank: type[nn.Cell], ranks: int, batch: int) -> float:
    use_device("CPU")
    objective, embeddings = ValueAndGradient(rank(ranks)), random_embeddings(batch)
    objective.compile(*embeddings)
    # MindSpore counts no memory on CPU. This makes the peak of the resident set begin anew.
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident_mebibytes("VmHWM")
    for _ in range(20):  # it goes on rising for some calls
        objective(*embeddings)[1].asnumpy()
    return _resident_mebibytes("VmHWM") - before


def _resident_mebibytes(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
