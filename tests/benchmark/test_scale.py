"""The formulas of scale, by hand and against what really crosses between ranks; the README's table is theirs."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mindspore_gpt4image.benchmark.scale import (
    Links,
    Setting,
    alignment_bytes,
    alignment_flops,
    alignment_seconds,
    checkpoint_bytes,
    gradient_bytes,
    host_table,
    link_seconds,
    matrix_bytes,
    step_seconds,
    step_table,
    store_bytes,
)
from mindspore_gpt4image.checkpoint import save_checkpoint
from mindspore_gpt4image.losses import GPT4ImageLoss
from mindspore_gpt4image.model_info import ModelInfo
from mindspore_gpt4image.models import Preprocess, create_network, weights
from mindspore_gpt4image.training.optimizer import create_optimizer
from mindspore_gpt4image.training.step import TrainStep

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


# A device that trains 2 images of 5 operations a second, on links of 10 and 1 bytes a second.
SMALL = Setting(batch=3, dim=4, parameters=8, flops=5, images_per_second=2, devices=2)
LINKS = Links("", inside=10, between=1)


def test_time_on_the_slowest_link():
    assert link_seconds(30, 2, SMALL, LINKS) == 3
    assert link_seconds(30, 3, SMALL, LINKS) == 30


def test_time_of_a_step():
    """3 images in 1.5 s; 32 bytes of gradients (2 ranks send half their 8 numbers, twice); 60 bytes of the alignment.

    It multiplies 3 images with 6 texts of 4 numbers, forward and backward: 4 x 72 operations of 10 a second.
    """
    assert alignment_flops(2, 3, 4) == 4 * 72
    assert alignment_seconds(2, SMALL, LINKS) == pytest.approx(6 + 28.8)
    assert step_seconds(2, SMALL, LINKS) == pytest.approx(1.5 + 3.2 + 34.8)


def test_size_of_a_checkpoint(tmp_path):
    """Written as training does; names and the model's description take the rest."""
    network = create_network("resnet10_cifar_half", 10, text_dim=16)
    optimizer = create_optimizer(network.trainable_params(), name="sgd", lr=0.1, weight_decay=0)
    step = TrainStep(network, Preprocess((0, 0, 0), (1, 1, 1)), GPT4ImageLoss(), optimizer)
    model = ModelInfo(
        "resnet10_cifar_half", tuple("abcdefghij"), 32, 32, "bilinear", (0, 0, 0), (1, 1, 1), "linear", 16
    )
    save_checkpoint(tmp_path / "last.ckpt", network, model, {}, step.state())
    save_checkpoint(tmp_path / "best.ckpt", network, model, {})
    parameters = sum(parameter.size for parameter in network.trainable_params())
    statistics = sum(parameter.size for parameter in weights(network).values()) - parameters
    for name, count in (("last.ckpt", Setting.moments), ("best.ckpt", 0)):
        size = (tmp_path / name).stat().st_size
        assert size == pytest.approx(checkpoint_bytes(parameters, statistics, count), rel=0.01)


def test_resnet_50_has_as_many_parameters_as_the_setting_says():
    network = create_network("resnet50", 1000, text_dim=Setting.dim)
    parameters = sum(parameter.size for parameter in network.trainable_params())
    assert parameters == pytest.approx(Setting.parameters, abs=Setting.dim)  # the projection's bias, if it has one
    assert sum(parameter.size for parameter in weights(network).values()) - parameters == Setting.statistics


def test_the_readme_has_these_tables():
    readme = README.read_text(encoding="utf-8")
    assert step_table(Setting()) in readme
    assert host_table(Setting()) in readme
