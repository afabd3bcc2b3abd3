"""Finding broken images in a set."""

import numpy as np
import pytest
from PIL import Image

from mindspore_gpt4image.sources import image_set
from mindspore_gpt4image.sources.formats import list_images


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return list_images(tmp_path, "train")


def test_broken_images_are_named_in_order(images, monkeypatch):
    monkeypatch.setattr(image_set, "islice", lambda positions, _: [n for n, _ in zip(positions, range(7))])
    paths = [images.root / id for id in images.ids]
    paths[16].write_bytes(b"")
    paths[3].write_bytes(paths[3].read_bytes()[:100])
    (three, cut), (sixteen, empty) = images.find_broken()
    assert (three, sixteen) == (3, 16)
    assert cut.startswith(f"{paths[3]}: cannot be decoded: ")
    assert empty == f"{paths[16]}: cannot be decoded: the file is empty; replace or remove it"


def test_only_the_positions_asked_for_are_decoded(images):
    (images.root / images.ids[16]).write_bytes(b"")
    assert images.find_broken([1, 2]) == []
    assert [position for position, _ in images.find_broken([17, 16, 1])] == [16]
