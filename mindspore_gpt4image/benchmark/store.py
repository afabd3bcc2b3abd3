"""The embedding store against `torch.load` of the same matrix: opening, memory, random rows."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import numpy as np

from mindspore_gpt4image.benchmark.measure import Comparison, compare, milliseconds
from mindspore_gpt4image.data.store import EmbeddingStore, write_store
from mindspore_gpt4image.errors import UserError

DIM = 512
ROWS = 256
PROCESSES = 4
# Rows that each process reads before its memory is looked at: those of this many batches.
_BATCHES = 40
_BLOCK = 65_536
# A look-up takes half a millisecond: it is measured so many times in each run.
_LOOK_UPS = 20

_OUR_PROCESS = """
from mindspore_gpt4image.data.store import EmbeddingStore
import numpy as np
def read(path):
    store = EmbeddingStore.open(path)
    for _ in range({batches}):
        store.take(np.random.default_rng(0).integers(0, len(store), {rows}))
    return store
"""
_TORCH_PROCESS = """
import torch
def read(path):
    matrix = torch.load(path, weights_only=True)
    for _ in range({batches}):
        matrix[torch.randint(len(matrix), ({rows},))].float()
    return matrix
"""
# What the process took before it opened anything, its imports, is left out.
_GROWTH = """
import psutil, sys
before = psutil.Process().memory_info().rss
kept = read(sys.argv[1])
print(psutil.Process().memory_info().rss - before)
"""


def comparisons(quick: bool) -> Iterator[Comparison]:
    """Rows for ImageNet's number of texts; quick: for a tenth of it.

    Raises:
        UserError: PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError("benchmark store: compares with PyTorch, which is not installed; pip install torch")
    return measured(*((131_072, 7) if quick else (1_281_167, 15)))


def measured(count: int, runs: int) -> Iterator[Comparison]:
    """The rows of `comparisons` for `count` texts."""
    import torch

    with tempfile.TemporaryDirectory() as temporary:
        path, matrix_file = Path(temporary, "short.mindrecord"), Path(temporary, "short.pt")
        _write(path, matrix_file, count)
        of = f"{count:,} texts of {DIM} halves"
        store = EmbeddingStore.open(path)  # makes the copy that later opens refer to
        opening = milliseconds(lambda: EmbeddingStore.open(path))
        loading = milliseconds(lambda: torch.load(matrix_file, weights_only=True))
        yield compare(f"open against torch.load, {of}", opening, loading, unit="ms", runs=runs, goal=1 / 20)

        look_ups = _LOOK_UPS * runs
        numbers = iter(np.random.default_rng(1).integers(0, count, (2 * look_ups + 100, ROWS)))
        name = f"{ROWS} random rows against a tensor in memory, {of}"
        taking = milliseconds(lambda: store.take(next(numbers)))
        indexing = milliseconds(_indexing(matrix_file, numbers))
        yield compare(name, taking, indexing, unit="ms", runs=look_ups, goal=2)
        del indexing

        name = f"resident memory of {PROCESSES} processes against torch.load, {of}"
        ours, theirs = (lambda: _memory(_OUR_PROCESS, path)), (lambda: _memory(_TORCH_PROCESS, matrix_file))
        yield compare(name, ours, theirs, unit="MB", runs=3, goal=1 / 10)


def _write(path: Path, matrix_file: Path, count: int) -> None:
    """The same rows as a store and as a PyTorch file."""
    import torch

    random = np.random.default_rng(0)
    matrix = np.empty((count, DIM), np.float16)
    for start in range(0, count, _BLOCK):
        rows = random.standard_normal((min(_BLOCK, count - start), DIM), np.float32)
        matrix[start : start + _BLOCK] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    ids = [f"train/n{number // 1300:08d}/n{number // 1300:08d}_{number}.JPEG" for number in range(count)]
    made_from = {"encoder": "random", "text": "short", "truncated": 0, "descriptions_sha256": "0" * 64}
    write_store(path, ids, range(count), matrix, made_from)
    torch.save(torch.from_numpy(matrix), matrix_file)
    os.sync()  # or the kernel would go on writing while we measure


def _indexing(matrix_file: Path, numbers: Iterator[np.ndarray]) -> Callable:
    import torch

    matrix = torch.load(matrix_file, weights_only=True)
    return lambda: matrix[torch.from_numpy(next(numbers))].float()


def _memory(program: str, path: Path) -> float:
    """By how much the resident memory of processes that run at the same time grows, in MB, all together."""
    program = program.format(batches=_BATCHES, rows=ROWS) + _GROWTH
    command = [sys.executable, "-c", program, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)]
    return sum(int(process.communicate()[0]) for process in processes) / 1e6
