"""What `tools/benchmark.py pipeline` and `store` compare. Nothing is judged by its speed here."""

import io
import json
from dataclasses import asdict

import numpy as np
import pytest

from mindspore_gpt4image.benchmark import pipeline, store
from mindspore_gpt4image.benchmark.pictures import QUALITY, SIZE, picture
from mindspore_gpt4image.benchmark.torch_loader import crop_box


def test_pictures_are_of_imagenet_s_size_in_pixels_and_bytes():
    for seed in range(3):
        buffer = io.BytesIO()
        image = picture(seed)
        image.save(buffer, "JPEG", quality=QUALITY)
        assert image.size == SIZE
        assert 95_000 < len(buffer.getvalue()) < 135_000
    assert picture(0).tobytes() == picture(0).tobytes() != picture(1).tobytes()


def test_pytorch_s_crops_are_those_of_torchvision():
    boxes = np.array([crop_box(500, 375) for _ in range(500)])
    left, top, width, height = boxes.T
    assert (left >= 0).all() and (top >= 0).all() and (left + width <= 500).all() and (top + height <= 375).all()
    share, shape = width * height / (500 * 375), width / height
    assert 0.075 < share.min() < 0.12 and 0.85 < share.max() <= 1
    assert 0.74 < shape.min() < 0.78 and 1.28 < shape.max() < 1.36


def check(rows, names):
    rows = [asdict(row) for row in rows]
    assert json.loads(json.dumps(rows)) == json.loads(json.dumps(rows))
    for start in names:
        (row, *_) = [row for row in rows if row["name"].startswith(start)]
        assert row["ours"] > 0 and row["peer"] > 0 and row["ratio"] > 0
    return rows


@pytest.mark.slow
def test_rows_of_pipeline():
    rows = check(
        pipeline.measured(256, 1),
        ["folder against MindCV", "folder against PyTorch", "joined", "packed against", "packed at 400", "reading"],
    )
    assert {row["goal"] for row in rows if row["unit"] == "img/s"} == {1.15, 2.5, 0.97, 1.0, 1.3, None}
    assert {row["unit"]: row["better"] for row in rows} == {"img/s": "higher", "ms": "lower"}


@pytest.mark.slow
def test_rows_of_store():
    rows = check(store.measured(3000, 2), ["open against torch.load", "256 random rows", "resident memory of 4"])
    assert [row["goal"] for row in rows] == [1 / 20, 2, 1 / 10]
