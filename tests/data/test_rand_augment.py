"""RandAugment: timm's operators and draws, decided by (seed, row) alone."""

import numpy as np
import pytest
from mindcv.data import auto_augment as mindcv
from mindspore.dataset.vision import Inter
from PIL import Image, ImageEnhance, ImageOps

from mindspore_gpt4image.data import rand_augment
from mindspore_gpt4image.data.rand_augment import OPERATORS, TWO_SIDED, RandAugment, augment_batches
from mindspore_gpt4image.errors import UserError

FILL = (124, 116, 104)
RECIPE = RandAugment.parse("rand-m9-mstd0.5-inc1", "bicubic", FILL)


@pytest.fixture(scope="module")
def picture():
    """Smooth colours, 64 wide and 48 high, that use neither end of the scale."""
    noise = np.random.default_rng(0).integers(30, 220, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((64, 48), Image.BICUBIC)


def timm(name, image, magnitude, sign):
    """timm's level_to_arg of the increasing operators, then the operator: pixelwise ones in NumPy."""
    pixels = np.asarray(image).astype(int)
    fraction = magnitude / 10.0
    if name in ("color", "contrast", "brightness", "sharpness"):
        factor = max(0.1, 1.0 + sign * fraction * 0.9)
        return np.asarray(getattr(ImageEnhance, name.capitalize())(image).enhance(factor))
    if name == "rotate":
        return np.asarray(image.rotate(sign * fraction * 30.0, Image.BICUBIC, fillcolor=FILL))
    moves = {
        "shear_x": (1, sign * fraction * 0.3, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * fraction * 0.3, 1, 0),
        "translate_x": (1, 0, sign * fraction * 0.45 * image.width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * fraction * 0.45 * image.height),
    }
    if name in moves:
        return np.asarray(image.transform(image.size, Image.AFFINE, moves[name], Image.BICUBIC, fillcolor=FILL))
    if name == "posterize":
        bits = 4 - int(fraction * 4)
        return pixels & ~(2 ** (8 - bits) - 1)
    if name == "solarize":
        return np.where(pixels < 256 - min(256, int(fraction * 256)), pixels, 255 - pixels)
    if name == "solarize_add":
        return np.where(pixels < 128, np.minimum(255, pixels + min(128, int(fraction * 110))), pixels)
    if name == "invert":
        return 255 - pixels
    return np.asarray({"auto_contrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[name](image))


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_timm_s(name, picture):
    look = {"resample": Image.BICUBIC, "fillcolor": FILL}
    for magnitude in (0.0, 2.6, 5.0, 7.5, 9.0, 9.4, 10.0):
        for sign in (1, -1) if name in TWO_SIDED else (1,):
            ours = np.asarray(OPERATORS[name](picture, sign * magnitude / 10, look))
            np.testing.assert_array_equal(ours, timm(name, picture, magnitude, sign), f"magnitude {magnitude}")


@pytest.mark.parametrize(
    ("name", "mindcv_name", "tolerance"),
    [
        ("invert", "Invert", 0),
        ("solarize", "SolarizeIncreasing", 0),
        ("auto_contrast", "AutoContrast", 1),
        ("color", "ColorIncreasing", 1),
        ("contrast", "ContrastIncreasing", 1),
        ("brightness", "BrightnessIncreasing", 1),
        ("sharpness", "SharpnessIncreasing", 1),
        ("equalize", "Equalize", 2),
    ],
)
def test_operators_that_mindcv_shares(name, mindcv_name, tolerance, picture, monkeypatch):
    """Within rounding. Its rotations, shears, translations and posterizing are other operations."""
    monkeypatch.setattr(mindcv, "_randomly_negate", lambda value: value)
    level_to_arg = mindcv.LEVEL_TO_ARG[mindcv_name]
    arguments = level_to_arg(9.0, {}) if level_to_arg else ()
    theirs = mindcv.NAME_TO_OP[mindcv_name](np.asarray(picture), *arguments, resample=Inter.BICUBIC)
    ours = np.asarray(OPERATORS[name](picture, 0.9, {}))
    assert np.abs(ours.astype(int) - theirs).max() <= tolerance


def test_draws(picture, monkeypatch):
    """Two of 15 operators with replacement, each with probability 1/2, levels around 0.9, half of them negated."""
    seen = []
    recorders = {name: lambda image, level, look, name=name: seen.append((name, level)) or image for name in OPERATORS}
    monkeypatch.setattr(rand_augment, "OPERATORS", recorders)
    random = np.random.default_rng(3)
    pixels = np.asarray(picture)
    for _ in range(6000):
        RECIPE(pixels, random)
    names, levels = zip(*seen)
    assert len(OPERATORS) == 15
    assert len(seen) == pytest.approx(6000, rel=0.04)
    counts = [names.count(name) for name in OPERATORS]
    assert min(counts) > 320
    assert max(counts) < 480
    size = np.abs(levels)
    assert size.max() == 1
    assert np.median(size) == pytest.approx(0.9, abs=0.005)
    assert np.quantile(size, 0.16) == pytest.approx(0.85, abs=0.008)
    negative = [level < 0 for name, level in seen if name in TWO_SIDED]
    assert np.mean(negative) == pytest.approx(0.5, abs=0.04)
    assert all(level >= 0 for name, level in seen if name not in TWO_SIDED)


def batches(pixels, size):
    for first in range(0, len(pixels), size):
        yield pixels[first : first + size], np.arange(first, first + size)


def test_a_row_is_decided_by_seed_and_place_alone(picture):
    pixels = np.stack([np.asarray(picture)] * 24)
    runs = [
        list(augment_batches(batches(pixels, size), RECIPE, seed, threads))
        for size, seed, threads in ((4, 1, 1), (12, 1, 3), (4, 2, 1))
    ]
    one, other_batches, other_seed = (np.concatenate([rows for rows, _ in run]) for run in runs)
    assert [positions.tolist() for _, positions in runs[0]] == np.arange(24).reshape(6, 4).tolist()
    np.testing.assert_array_equal(one, other_batches)
    assert (one != other_seed).any()
    assert len({row.tobytes() for row in one}) > 12
    assert one.dtype == np.uint8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rand-m9-mstd0.5-inc1", RandAugment(9, 0.5, 2, 0.5)),
        ("rand-inc1-n3-p1-m7", RandAugment(7, 0, 3, 1)),
        ("rand-inc1", RandAugment(10, 0, 2, 0.5)),
    ],
)
def test_notation(text, expected):
    assert RandAugment.parse(text, "bicubic", (128, 128, 128)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("randaug-m9-inc1", "begins with 'randaug', not with rand"),
        ("rand-m9-x3-inc1", "'x3' is none of m, mstd, n, p, inc"),
        ("rand-m9-mstd-inc1", "'mstd' is none of"),
        ("rand-m9-tweights-inc1", "'tweights' is none of"),
        ("rand-m9-m5-inc1", "m stands there twice"),
        ("rand-m15-inc1", "m must be at most 10"),
        ("rand-m9-mstd101-inc1", "mstd must be at most 100"),
        ("rand-n0-inc1", "n must be a whole number from 1"),
        ("rand-p2-inc1", "p must be at most 1"),
        ("rand-m9-mstd0.5", "inc must be 1"),
        ("rand-m9-inc0", "inc must be 1"),
        ("", "begins with ''"),
    ],
)
def test_notation_that_is_refused(text, message):
    with pytest.raises(UserError, match=f"^augment.rand_augment={text}: {message}"):
        RandAugment.parse(text, "bicubic", FILL)
