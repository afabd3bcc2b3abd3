"""Batches: every image once, in an order of ours, with the pixels that anyone can repeat."""

import dataclasses

import numpy as np
import pytest
from cifar_archives import write_archive
from PIL import Image
from tiny_data import SIDE, make_images

from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.pipeline import epoch_order, steps_per_epoch, train_batches
from mindspore_gpt4image.data.rand_augment import RandAugment, augment_batches
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.evaluation_batches import evaluation_batches
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.preprocessing import EvalTransform

PLAIN = Augmentation(SIDE, crop="none", flip=0.0)
RANDOM = Augmentation(SIDE, crop="padded", flip=0.5, color_jitter=0.3)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    make_images(root, "train", 9)
    return list_images(root, "train")


def read(images, position):
    return np.asarray(Image.open(images.root / images.ids[position]))


def collect(batches):
    pixels, positions = zip(*batches)
    return np.concatenate(pixels), np.concatenate(positions)


def test_no_image_comes_twice_and_only_the_remainder_is_left_out():
    order = epoch_order(27, 4, seed=3, epoch=0)
    assert len(order) == 24
    assert len(set(order.tolist())) == 24


def test_epochs_and_seeds_differ_and_repeat():
    assert (epoch_order(27, 4, 3, 0) == epoch_order(27, 4, 3, 0)).all()
    assert (epoch_order(27, 4, 3, 0) != epoch_order(27, 4, 3, 1)).any()
    assert (epoch_order(27, 4, 3, 0) != epoch_order(27, 4, 4, 0)).any()


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_see_together_what_one_process_sees(ranks, repeats):
    joined = epoch_order(100, 4 * ranks, seed=1, epoch=2, repeats=repeats).reshape(-1, 4, ranks)
    for rank in range(ranks):
        part = epoch_order(100, 4, seed=1, epoch=2, rank=rank, world_size=ranks, repeats=repeats)
        assert (part.reshape(-1, 4) == joined[:, :, rank]).all()


def repeated_augmentation_of_deit(shuffled, ranks, rank, repeats=3):
    """DeiT's RASampler: every copy of every image in a row, padded; a rank's share; of it as many as without copies."""
    indices = [index for index in shuffled for _ in range(repeats)]
    total = -(-len(indices) // ranks) * ranks
    indices += indices[: total - len(indices)]
    return indices[rank:total:ranks][: len(shuffled) // 256 * 256 // ranks]


@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 64), (4, 16), (8, 32)])
def test_repeated_augmentation_is_deit_s(ranks, batch_size):
    shuffled = epoch_order(1030, 1, seed=3, epoch=5)
    for rank in range(ranks):
        ours = epoch_order(1030, batch_size, 3, 5, rank, ranks, repeats=3)
        official = repeated_augmentation_of_deit(shuffled.tolist(), ranks, rank)
        steps = len(official) // batch_size
        assert len(ours) == steps * batch_size
        assert ours.tolist() == official[: len(ours)]


def test_copies_go_to_different_ranks_and_into_one_global_batch():
    parts = np.stack([epoch_order(900, 10, 0, 0, rank, 3, repeats=3) for rank in range(3)])
    assert (parts == parts[0]).all()
    assert len(set(parts[0].tolist())) == parts.shape[1] == 300


def test_epochs_on_imagenet_have_deit_s_length():
    """1,281,167 images on 8 ranks of 128: 1,251 steps, each image that comes at all three times."""
    orders = [epoch_order(1281167, 128, 0, 0, rank, 8, repeats=3) for rank in range(8)]
    assert {len(order) for order in orders} == {1251 * 128}
    _, copies = np.unique(np.concatenate(orders), return_counts=True)
    assert set(copies.tolist()) == {3}


def test_too_few_images_for_one_batch_are_refused():
    with pytest.raises(UserError, match=r"batch_size=16 on 2 rank\(s\) needs 32 images, the train split has 27"):
        steps_per_epoch(27, 16, 2)


def test_plain_pixels_are_those_of_the_files_in_the_given_order(images):
    order = epoch_order(len(images), 4, seed=0, epoch=0)
    pixels, positions = collect(train_batches(images, order, PLAIN, 4, seed=1, workers=2))
    assert (positions == order).all()
    assert pixels.dtype == np.uint8
    assert all((pixel == read(images, position)).all() for pixel, position in zip(pixels, positions))


def test_augmented_pixels_repeat_for_the_seed_alone(images):
    order = epoch_order(len(images), 4, seed=0, epoch=0)
    one, two, other = (collect(train_batches(images, order, RANDOM, 4, seed, workers=2))[0] for seed in (1, 1, 2))
    assert (one == two).all()
    assert (one != other).any()


def test_flips_and_shifts_are_independent(tmp_path):
    """A picture with one bright pixel shows its shift and its flip: all four combinations of left/right come."""
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[8, 4] = 255
    for number in range(400):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    images = list_images(tmp_path, "train")
    augmentation = Augmentation(SIDE, crop="padded", flip=0.5, padding=3)
    seen, _ = collect(train_batches(images, np.arange(400), augmentation, 40, seed=5, workers=2))
    column = seen.sum(axis=(1, 3)).argmax(axis=1)
    flipped = column > 7
    shift = np.where(flipped, SIDE - 1 - column, column) - 4
    assert abs(flipped.mean() - 0.5) < 0.1
    assert abs(np.corrcoef(flipped, shift)[0, 1]) < 0.15
    assert set(shift.tolist()) == set(range(-3, 4))


def test_rand_augment_follows_crop_and_flip(images):
    order = epoch_order(len(images), 4, seed=0, epoch=0, repeats=3)
    rand_augment = RandAugment.parse("rand-m9-p1-inc1", "bilinear", (0, 0, 0))
    before, _ = collect(train_batches(images, order, RANDOM, 4, seed=1, workers=2))
    augmentation = dataclasses.replace(RANDOM, rand_augment=rand_augment)
    after, positions = collect(train_batches(images, order, augmentation, 4, seed=1, workers=2))
    assert (positions == order).all()
    expected = augment_batches([(before, order)], rand_augment, seed=1, threads=1)
    assert (after == next(expected)[0]).all()


@pytest.mark.parametrize("crop", ["random_resized", "padded", "none"])
def test_every_crop_gives_the_network_s_size(images, crop):
    augmentation = Augmentation(12, crop=crop, interpolation="bicubic")
    pixels, _ = next(train_batches(images, np.arange(4), augmentation, 4, seed=0, workers=1))
    assert pixels.shape == (4, 12, 12, 3)


def test_an_image_that_breaks_in_training_is_named(tmp_path):
    make_images(tmp_path, "train", 3)
    images = list_images(tmp_path, "train")
    path = tmp_path / "train" / "green" / "01.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="green/01.png"):
        list(train_batches(images, np.arange(9), PLAIN, 3, seed=0, workers=2))


def test_odd_images_look_alike_in_training_and_evaluation(tmp_path):
    """Turned by a camera, with 16 bits, transparent, in CMYK, of another format than the name says, and plain."""
    make_images(tmp_path, "train", 1)
    picture = Image.open(tmp_path / "train" / "red" / "00.png")
    folder = tmp_path / "train" / "odd"
    folder.mkdir()
    exif = Image.Exif()
    for orientation in (3, 6, 8):
        exif[0x0112] = orientation
        picture.save(folder / f"turned{orientation}.png", exif=exif)
    Image.fromarray(np.arange(0, 65536, 256, dtype=np.uint16).reshape(SIDE, SIDE)).save(folder / "deep.png")
    picture.convert("CMYK").save(folder / "cmyk.tiff")
    picture.convert("RGBA").save(folder / "clear.png")
    picture.save(folder / "lies.jpg", format="GIF")
    images = list_images(tmp_path, "train")
    everything = np.arange(len(images))
    trained, _ = collect(train_batches(images, everything, PLAIN, len(images), seed=0, workers=2))
    ((evaluated, _),) = evaluation_batches(images, everything, EvalTransform(SIDE, SIDE), len(images), workers=2)
    assert (trained == evaluated).all()
    turned, stored = images.ids.index("train/odd/turned3.png"), np.asarray(picture)
    assert (evaluated[turned] == stored[::-1, ::-1]).all()
    assert evaluated[images.ids.index("train/odd/deep.png")].std() > 50


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("crop", ["random_resized", "padded", "none"])
def test_cifar_in_training(tmp_path, version, crop):
    images = list_images(write_archive(tmp_path, "cifar100", version), "train")
    augmentation = Augmentation(32, crop=crop, flip=0.0)
    pixels, positions = next(train_batches(images, np.array([2, 0, 1, 3]), augmentation, 4, seed=0, workers=1))
    assert pixels.shape == (4, 32, 32, 3)
    if crop == "none":
        assert all((image == np.asarray(images.rgb(position))).all() for image, position in zip(pixels, positions))
