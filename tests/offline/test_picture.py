"""Images as a describing model sees them."""

import io

import numpy as np
import pytest
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.picture import Picture, up_sample
from mindspore_gpt4image.sources.formats import list_images

ARROW = np.zeros((40, 60, 3), np.uint8)
ARROW[:20, :30] = (250, 0, 0)


def pictures(root):
    images = list_images(root, "train")
    return {id.rpartition("/")[2]: Picture(images, position) for position, id in enumerate(images.ids)}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    return tmp_path / "train" / "a"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((32, 32), (224, 224)),
        ((40, 20), (448, 224)),
        ((100, 223), (224, 500)),
        ((224, 300), (224, 300)),
        ((640, 480), (640, 480)),
        ((1000, 4), (1024, 4)),
        ((2000, 4), (2000, 4)),
        ((1, 1), (224, 224)),
    ],
)
def test_small_images_are_up_sampled(size, expected):
    image = Image.new("RGB", size)
    result = up_sample(image)
    assert result.size == expected
    assert (result is image) == (size == expected)


def test_a_plain_file_is_sent_as_it_is(folder, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (230, 240, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "plain.jpg")
    picture = pictures(tmp_path)["plain.jpg"]
    assert picture.id == "train/a/plain.jpg"
    assert picture.encoded() == (folder / "plain.jpg").read_bytes()


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
@pytest.mark.parametrize("side", [1, 8], ids=["up-sampled", "large"])
def test_what_is_sent_has_the_pixels_of_training(folder, tmp_path, orientation, turns, side):
    upright = np.repeat(np.repeat(ARROW, side, 0), side, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.rot90(upright, turns)).save(folder / "arrow.png", exif=exif)
    picture = pictures(tmp_path)["arrow.png"]
    expected = up_sample(Image.fromarray(upright))
    np.testing.assert_array_equal(np.asarray(picture.image), np.asarray(expected))
    sent = Image.open(io.BytesIO(picture.encoded()))
    np.testing.assert_array_equal(np.asarray(sent.convert("RGB")), np.asarray(expected))
    assert sent.getexif().get(0x0112, 1) == 1


def test_a_broken_image_is_told(folder, tmp_path):
    Image.fromarray(np.repeat(ARROW, 8, 0)).save(folder / "cut.jpg")
    data = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(UserError, match="cut.jpg: cannot be decoded"):
        pictures(tmp_path)
