"""Evaluation sees every image once, with the pixels that Pillow makes."""

import numpy as np
import pytest
from PIL import Image
from tiny_data import SIDE, make_images

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.evaluation_batches import evaluation_batches
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.preprocessing import EvalTransform


def read(images, position):
    return np.asarray(Image.open(images.root / images.ids[position]).convert("RGB"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    make_images(root, "train", 9)
    return list_images(root, "train")


@pytest.mark.parametrize("batch_size", [1, 4, 13, 27, 40])
def test_evaluation_sees_every_image_once_whatever_the_batch(images, batch_size):
    transform = EvalTransform(resize=SIDE, crop=12)
    batches = list(evaluation_batches(images, np.arange(len(images)), transform, batch_size, workers=2))
    assert {pixels.shape for pixels, _ in batches} == {(batch_size, 12, 12, 3)}
    pixels = np.concatenate([pixels[: len(rows)] for pixels, rows in batches])
    assert np.concatenate([rows for _, rows in batches]).tolist() == list(range(27))
    assert all((pixels[n] == read(images, n)[2:14, 2:14]).all() for n in range(27))


def test_evaluation_names_an_image_it_cannot_read(tmp_path):
    make_images(tmp_path, "val", 2)
    images = list_images(tmp_path, "val")
    (tmp_path / "val" / "red" / "00.png").write_bytes(b"")
    with pytest.raises(UserError, match="red/00.png"):
        list(evaluation_batches(images, np.arange(6), EvalTransform(SIDE, SIDE), 4, workers=2))
