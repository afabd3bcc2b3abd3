"""A checkpoint that was damaged is refused, or holds what was saved."""

import mindspore as ms
import numpy as np
import pytest
from damage import cases, damaged
from hypothesis import example, given
from hypothesis import strategies as st
from mindspore import Parameter, Tensor, nn

from mindspore_gpt4image.checkpoint import read_checkpoint, save_checkpoint
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.model_info import ModelInfo

INFO = ModelInfo("resnet18", ("añb", "c"), 16, 16, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "linear", 4)
PROGRESS = {"epoch": 3, "config": {"data": {"root": "d"}}}


@pytest.fixture(scope="module", params=["a.ckpt", "a.safetensors"])
def saved(request, tmp_path_factory):
    """A whole checkpoint of a few kilobytes: its path, its bytes, and what it holds."""
    path = tmp_path_factory.mktemp("saved") / request.param
    ms.set_seed(0)
    moments = {
        "moment": Parameter(Tensor(np.arange(6, dtype=np.float32).reshape(2, 3)), name="moment"),
        "step": Parameter(Tensor(7, ms.int32), name="step"),
    }
    save_checkpoint(path, nn.SequentialCell(nn.Dense(3, 4), nn.BatchNorm2d(4)), INFO, PROGRESS, moments)
    return path, path.read_bytes(), content(path)


def content(path):
    checkpoint = read_checkpoint(path)
    arrays = {
        name: (value.dtype, value.shape, value.asnumpy().tobytes())
        for name, value in {**checkpoint.network, **checkpoint.training}.items()
    }
    return checkpoint.model, checkpoint.progress, arrays


def refused_or_whole(path, data, whole):
    path.write_bytes(data)
    try:
        found = content(path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert found == whole


@cases(200, 10_000)
@given(data=st.data())
def test_accidents(saved, data):
    path, good, whole = saved
    refused_or_whole(path, data.draw(damaged(good)), whole)


@cases(30, 2_000)
@given(end=st.binary(max_size=30), start=st.binary(max_size=400))
@example(start=b"", end=b"crc_num" + bytes(10))
def test_foreign_bytes(saved, start, end):
    path, _, whole = saved
    refused_or_whole(path, start + end, whole)


def test_every_bit_of_the_last_bytes(saved):
    """Where MindSpore looks for its checksum, and whether there is one."""
    path, good, whole = saved
    for position in range(len(good) - 20, len(good)):
        for bit in range(8):
            data = bytearray(good)
            data[position] ^= 1 << bit
            refused_or_whole(path, bytes(data), whole)
    for length in range(len(good) - 20, len(good)):
        refused_or_whole(path, good[:length], whole)
