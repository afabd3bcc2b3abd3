"""One folder as people really have it: every part of the package sees the same images in it."""

import numpy as np
import pytest
from PIL import Image

from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.pack import pack
from mindspore_gpt4image.data.pipeline import train_batches
from mindspore_gpt4image.offline.picture import Picture, up_sample
from mindspore_gpt4image.predict import find_images
from mindspore_gpt4image.sources.evaluation_batches import evaluation_batches
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.preprocessing import EvalTransform

SIDE = 24
# What is meant, and how each is to look: an arrow that points up, on white.
IMAGES = (
    "A b.JPG",
    "c.JPEG",
    "caf\u00e9.webp",
    "cafe\u0301.bmp",
    "deep/er/g.gif",
    "grey16.png",
    "turned.jpeg",
    "\u732b.png",
)


def arrow():
    """Black on white, without symmetry but for left and right."""
    pixels = np.full((SIDE, SIDE, 3), 255, np.uint8)
    pixels[4:20, 10:14] = 0
    for row in range(6):
        pixels[4 + row, 11 - row : 13 + row] = 0
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("messy")
    folder = root / "train" / "up"
    (folder / "deep" / "er").mkdir(parents=True)
    for name in IMAGES[:5]:
        arrow().save(folder / name, **({"quality": 100} if name.endswith(("JPG", "JPEG")) else {}))
    Image.fromarray(np.asarray(arrow().convert("L")).astype(np.uint16) * 257).save(folder / "grey16.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    arrow().rotate(90).save(folder / "turned.jpeg", exif=exif, quality=100)
    arrow().save(folder / "\u732b.png", format="TIFF")  # its name lies
    # And what is not meant.
    for name in (".DS_Store", "._A b.JPG", "Thumbs.db", "h.txt", "README"):
        (folder / name).write_bytes(b"\0" * 4096)
    (root / ".DS_Store").write_bytes(b"\0")
    (root / "train" / ".ipynb_checkpoints").mkdir()
    for place in (root / "train" / ".ipynb_checkpoints", folder / ".ipynb_checkpoints", folder / "__MACOSX"):
        place.mkdir(exist_ok=True)
        arrow().save(place / "copy.png")
    (folder / "circle").symlink_to(folder, target_is_directory=True)
    return root


@pytest.fixture(scope="module")
def images(root):
    return list_images(root, "train")


def test_what_is_an_image_and_what_is_not(images):
    assert images.ids == sorted(f"train/up/{name}" for name in IMAGES)
    assert images.classes == ("up",)
    assert images.notes == [f"{images.root}/train: files that are not read as images: 1 without an ending, 1 .txt"]


def test_prediction_takes_the_same_files(root, images):
    assert sorted(find_images([root / "train"])) == sorted(root / id for id in images.ids)


def test_packing_takes_the_same_images_as_they_look_now(root, images, tmp_path):
    pack(root, tmp_path / "packed", ["train"])
    packed = list_images(tmp_path / "packed", "train")
    assert packed.ids == images.ids
    for position in range(len(images)):
        assert packed.encoded(position) == images.encoded(position)
        assert (np.asarray(packed.rgb(position)) == np.asarray(images.rgb(position))).all()


def test_describing_sees_the_same_images(images):
    pictures = [Picture(images, position) for position in range(len(images))]
    assert [picture.id for picture in pictures] == images.ids
    upright = np.asarray(up_sample(arrow())).astype(int)
    assert all(np.abs(np.asarray(picture.image) - upright).mean() < 4 for picture in pictures)


def test_every_arrow_points_up_in_training_and_evaluation(images):
    positions = np.arange(len(images))
    expected = np.asarray(arrow()).astype(int)
    plain = Augmentation(SIDE, crop="none", flip=0.0)
    ((trained, _),) = train_batches(images, positions, plain, len(images), seed=0, workers=2)
    ((evaluated, _),) = evaluation_batches(images, positions, EvalTransform(SIDE, SIDE), len(images), workers=2)
    for pixels in (trained, evaluated, np.stack([images.rgb(position) for position in positions])):
        assert np.abs(pixels.astype(int) - expected).mean(axis=(1, 2, 3)).max() < 4
