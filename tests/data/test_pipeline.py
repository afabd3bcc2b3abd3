"""Batches: every image once, in an order of ours, with the pixels that anyone can repeat."""

import dataclasses

import numpy as np
import pytest
from cifar_archives import write_archive
from PIL import Image
from tiny_data import SIDE, make_images

from mindspore_gpt4image.data import pipeline
from mindspore_gpt4image.data.augmentation import Augmentation
from mindspore_gpt4image.data.pipeline import (
    epoch_order,
    epoch_seed,
    replace_broken,
    steps_per_epoch,
    train_batches,
)
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


def test_shifts_and_colours_do_not_depend_on_the_workers(images):
    order = epoch_order(len(images), 4, seed=0, epoch=0)
    plain = dataclasses.replace(RANDOM, flip=0)
    one, two = (collect(train_batches(images, order, plain, 4, seed=64, workers=workers))[0] for workers in (1, 2))
    assert (one == two).all()


@pytest.fixture(scope="module")
def ramps(tmp_path_factory):
    """400 times one picture whose colours tell each pixel's place: red grows to the right, green downwards."""
    folder = tmp_path_factory.mktemp("ramps") / "train" / "a"
    folder.mkdir(parents=True)
    ramp = np.arange(SIDE, dtype=np.uint8) * 8 + 60
    pixels = np.stack(np.broadcast_arrays(ramp, ramp[:, None], 100), axis=-1).astype(np.uint8)
    for number in range(400):
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    return list_images(folder.parents[1], "train")


def drawn(pixels):
    """What was drawn for each picture of `ramps`: flip, left, top, width and height of what is seen, and brightness."""
    pixels = pixels.astype(float)
    blue = pixels[:, 8, 8, 2]
    middle, column = pixels[:, 8, :, 0] / blue[:, None], pixels[:, :, 8, 1] / blue[:, None]
    return {
        "flip": (middle[:, 2] > middle[:, -3]).astype(float),
        "left": np.minimum(middle[:, 2], middle[:, -3]),
        "top": column[:, 2],
        "width": np.abs(middle[:, 2] - middle[:, -3]),
        "height": column[:, -3] - column[:, 2],
        "brightness": blue,
    }


def correlations(values):
    """The largest correlation of a flip or brightness with anything else that varies."""
    values = {name: value for name, value in values.items() if value.std() > 1e-3}
    return {
        (one, other): abs(np.corrcoef(values[one], values[other])[0, 1])
        for one in ("flip", "brightness")
        for other in values
        if one in values and one != other
    }


@pytest.mark.parametrize("crop", ["random_resized", "padded"])
def test_what_is_drawn_for_an_image_is_independent(ramps, crop):
    """Of 1,200 pictures a correlation by chance is above 0.13 once in 150,000 times.

    MindData's own padded crop and flip, which share a seed, have one of 0.86 between flip and vertical shift.
    """
    augmentation = Augmentation(SIDE, crop=crop, flip=0.5, padding=2)
    order = np.tile(np.arange(400), 3)
    pixels, _ = collect(train_batches(ramps, order, augmentation, 40, seed=64 * 5, workers=2))
    values = drawn(pixels)
    assert 0.44 < values["flip"].mean() < 0.56
    found = correlations(values)
    assert len(found) >= 2
    assert max(found.values()) < 0.13, found


def test_the_first_images_of_many_epochs_are_independent_too(ramps):
    """Generators that start alike agree in what they draw first. 150 epochs: above 0.36 once in 100,000 times."""
    augmentation = Augmentation(SIDE, crop="random_resized", flip=0.5)
    firsts = [
        next(train_batches(ramps, np.arange(2), augmentation, 2, epoch_seed(1, epoch), workers=2))[0]
        for epoch in range(150)
    ]
    found = correlations(drawn(np.stack(firsts)[:, 0]))
    assert max(found.values()) < 0.36, found


def test_colours_are_independent_of_the_crop(ramps):
    augmentation = Augmentation(SIDE, crop="random_resized", flip=0.5, color_jitter=0.3)
    pixels, _ = collect(train_batches(ramps, np.tile(np.arange(400), 3), augmentation, 40, seed=64, workers=2))
    brightness = pixels.astype(float).mean(axis=(1, 2, 3))
    plain, _ = collect(
        train_batches(
            ramps, np.tile(np.arange(400), 3), dataclasses.replace(augmentation, color_jitter=0), 40, 64, workers=2
        )
    )
    change = brightness / plain.astype(float).mean(axis=(1, 2, 3))
    assert change.std() > 0.05
    for name, value in drawn(plain).items():
        if value.std() > 1e-3:
            assert abs(np.corrcoef(change, value)[0, 1]) < 0.13, name


def test_ranks_and_epochs_have_seeds_far_apart():
    seeds = [epoch_seed(7, epoch, rank, 16) for epoch in range(300) for rank in range(16)]
    assert len({seed // 1024 for seed in seeds}) == len(seeds)
    assert all(seed % 1024 == 0 and 0 <= seed < 2**32 for seed in seeds)
    assert epoch_seed(7, 0) != epoch_seed(8, 0)


def test_a_seed_near_another_would_repeat_its_crops(images):
    """Why they are far apart: MindData's worker n starts from seed + n."""
    augmentation = Augmentation(SIDE, flip=0)
    order = np.zeros(8, int)
    one, other = (collect(train_batches(images, order, augmentation, 8, seed, workers=2))[0] for seed in (64, 65))
    assert (one[1] == other[0]).all()


@pytest.mark.parametrize("first_step", [1, 2, 3, 5, 6])
def test_what_is_left_of_an_epoch_is_what_the_whole_epoch_ends_with(images, monkeypatch, first_step):
    """With segments of two steps: the beginning of one, its middle, and the end."""
    monkeypatch.setattr(pipeline, "SEGMENT_STEPS", 2)
    augmentation = Augmentation(SIDE, flip=0.5, color_jitter=0.2)
    order = epoch_order(len(images), 4, seed=0, epoch=0)
    pixels, positions = collect(train_batches(images, order, augmentation, 4, 64, workers=2))
    rest = list(train_batches(images, order, augmentation, 4, 64, workers=2, first_step=first_step))
    assert len(rest) == 6 - first_step
    if rest:
        assert (np.concatenate([batch[0] for batch in rest]) == pixels[4 * first_step :]).all()
        assert (np.concatenate([batch[1] for batch in rest]) == positions[4 * first_step :]).all()


def test_segments_do_not_repeat_each_others_numbers(ramps, monkeypatch):
    monkeypatch.setattr(pipeline, "SEGMENT_STEPS", 1)
    augmentation = Augmentation(SIDE, flip=0.5)
    pixels, _ = collect(train_batches(ramps, np.arange(40), augmentation, 10, 64, workers=1))
    assert len({image.tobytes() for image in pixels}) == 40


def test_rand_augment_follows_crop_and_flip(images):
    order = epoch_order(len(images), 4, seed=0, epoch=0, repeats=3)
    rand_augment = RandAugment.parse("rand-m9-p1-inc1", "bilinear", (0, 0, 0))
    plain = dataclasses.replace(RANDOM, color_jitter=0)
    before, _ = collect(train_batches(images, order, plain, 4, seed=1, workers=2))
    augmentation = dataclasses.replace(plain, rand_augment=rand_augment)
    after, positions = collect(train_batches(images, order, augmentation, 4, seed=1, workers=2))
    assert (positions == order).all()
    expected = augment_batches([(before, order)], rand_augment, seed=1, threads=1)
    assert (after == next(expected)[0]).all()


def test_bicubic_is_pillow_s_also_where_it_makes_images_smaller(images):
    augmentation = Augmentation(11, crop="none", flip=0.0, interpolation="bicubic")
    pixels, positions = next(train_batches(images, np.arange(4), augmentation, 4, seed=0, workers=1))
    expected = [images.rgb(position).resize((11, 11), Image.BICUBIC) for position in positions]
    assert (pixels == np.stack([np.asarray(image) for image in expected])).all()


@pytest.mark.parametrize("crop", ["random_resized", "padded", "none"])
def test_every_crop_gives_the_network_s_size(images, crop):
    augmentation = Augmentation(12, crop=crop, interpolation="bicubic")
    pixels, _ = next(train_batches(images, np.arange(4), augmentation, 4, seed=0, workers=1))
    assert pixels.shape == (4, 12, 12, 3)


def break_image(images, position, cut=60):
    path = images.root / images.ids[position]
    path.write_bytes(path.read_bytes()[:cut])


@pytest.fixture
def fragile(tmp_path):
    """30 images that a test may break: PNG, and JPEG of noise."""
    make_images(tmp_path, "train", 9)
    for number, name in enumerate(("blue", "green", "red")):
        noise = np.random.default_rng(number).integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "train" / name / "photo.jpg", quality=90)
    return list_images(tmp_path, "train")


# 1500: MindData's Decode takes the rest for an image. 600: it ends the process.
@pytest.mark.parametrize(
    ("id", "cut"), [("train/green/01.png", 60), ("train/red/photo.jpg", 1500), ("train/red/photo.jpg", 600)]
)
def test_an_image_that_breaks_in_training_is_named(fragile, id, cut):
    break_image(fragile, fragile.ids.index(id), cut)
    with pytest.raises(UserError, match=f"{id}: cannot be decoded.*, or set data.skip_broken=true"):
        list(train_batches(fragile, np.arange(30), PLAIN, 3, seed=0, workers=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_image_is_left_out_and_another_comes_with_its_own_position(fragile, workers, capsys):
    """The images before and after it are what they would be, and every position belongs to its pixels."""
    order = epoch_order(30, 5, seed=3, epoch=0)
    whole, _ = collect(train_batches(fragile, order, PLAIN, 5, 64, workers))
    for hole in (7, 8, 22):
        break_image(fragile, order[hole], 1500 if "photo" in fragile.ids[order[hole]] else 60)
    broken = set()
    pixels, positions = collect(train_batches(fragile, order, PLAIN, 5, 64, workers, broken=broken))
    assert broken == set(order[[7, 8, 22]].tolist())
    kept = np.setdiff1d(np.arange(30), [7, 8, 22])
    assert (positions[kept] == order[kept]).all()
    assert positions[[7, 8]].tolist() == [order[23]] * 2  # half an epoch on, 22 is broken itself
    assert positions[22] == order[9]  # again: 7 and 8 are broken
    assert (pixels[kept] == whole[kept]).all()
    assert (pixels[[7, 8, 22]] == whole[[23, 23, 9]]).all()
    notes = capsys.readouterr().err
    assert all(f"note: left out, another image takes its place: {fragile.where(n)}" in notes for n in broken)


def test_a_broken_image_that_is_known_gives_the_same_epoch_as_one_that_is_found(fragile):
    order = epoch_order(30, 5, seed=3, epoch=0)
    break_image(fragile, order[13], 60)
    augmentation = Augmentation(SIDE, flip=0.5)
    found = collect(train_batches(fragile, order, augmentation, 5, 64, 2, broken=set()))
    known = collect(train_batches(fragile, order, augmentation, 5, 64, 2, broken={int(order[13])}))
    rest = collect(train_batches(fragile, order, augmentation, 5, 64, 2, broken=set(), first_step=2))
    for one, two, three in zip(found, known, rest):
        assert (one == two).all()
        assert (one[10:] == three).all()


def test_an_epoch_without_a_good_image_is_an_error():
    assert replace_broken(np.array([4, 2, 4, 7]), {4, 2}).tolist() == [7, 7, 7, 7]
    assert replace_broken(np.arange(4), {9}).tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match="none of the 2 images of this epoch can be decoded"):
        replace_broken(np.array([4, 2]), {4, 2})


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
