"""The formulas of scale, by hand and against what really crosses between ranks; the README's table is theirs."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mindspore_gpt4image.benchmark.scale import (
    Setting,
    alignment_bytes,
    gradient_bytes,
    matrix_bytes,
    store_bytes,
    table,
)
from mindspore_gpt4image.losses import GPT4ImageLoss

README = Path(__file__).parents[2] / "README.md"


def test_bytes_of_the_alignment():
    """2 ranks of 3 rows of 4 numbers: 3 foreign texts of 16 bytes and 3 ids of 4; clip adds 3 images and 3 numbers."""
    assert alignment_bytes("infonce", 2, 3, 4) == 3 * (16 + 4)
    assert alignment_bytes("clip", 2, 3, 4) == 3 * (16 + 4) + 3 * (16 + 4)
    assert alignment_bytes("infonce", 1, 3, 4) == 0
    assert alignment_bytes("cosine", 8, 256, 512) == alignment_bytes("none", 8, 256, 512) == 0


def test_bytes_of_the_gradients():
    """4 ranks, 8 parameters: each rank receives 3 foreign parts of 2 numbers to sum, and 3 finished ones."""
    assert gradient_bytes(8, 4) == (3 * 2 + 3 * 2) * 4
    assert gradient_bytes(8, 1) == 0


def test_bytes_of_memory():
    assert store_bytes(10, 4, 7) == 10 * (4 * 2 + 7 + 8 + 8)
    assert matrix_bytes(10, 4, 3) == 10 * 4 * 4 * 3


@pytest.mark.parametrize("alignment", ["infonce", "clip"])
def test_the_loss_gathers_just_that(alignment):
    """What rank 0 of 3 gathers of the others, counted where the loss gathers."""
    received = []

    class Counted(GPT4ImageLoss):
        def gather(self, x):
            received.append(2 * x.nbytes)
            return ops.concat([x] * 3)

    ms.set_context(mode=ms.PYNATIVE_MODE)
    labels = text_ids = Tensor(np.arange(5, dtype=np.int32))
    rows = Tensor(np.eye(5, 6, dtype=np.float32))
    Counted(alignment)(rows, labels, rows, rows, text_ids)
    assert sum(received) == alignment_bytes(alignment, 3, 5, 6)


def test_the_readme_has_this_table():
    assert table(Setting()) in README.read_text(encoding="utf-8")
