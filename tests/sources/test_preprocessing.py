"""The evaluation transform against hand-made Pillow steps and torchvision's rounding."""

import numpy as np
import pytest
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.preprocessing import EvalTransform


def noise(width, height):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


# (input, after resizing the shorter side to 8, corner of the 5 x 5 crop). Halves round to even: (8 - 5) / 2 -> 2,
# and the long side is rounded down: 8 * 20 / 12 = 13.3 -> 13.
@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [
        ((12, 20), (8, 13), (2, 4)),
        ((20, 12), (13, 8), (4, 2)),
        ((10, 10), (8, 8), (2, 2)),
        ((4, 6), (8, 12), (2, 4)),
        ((8, 11), (8, 11), (2, 3)),
        ((1, 100), (8, 800), (2, 398)),
    ],
)
@pytest.mark.parametrize(("name", "method"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
def test_equals_plain_pillow(size, resized, corner, name, method):
    image = noise(*size)
    got = EvalTransform(resize=8, crop=5, interpolation=name)(image)
    left, top = corner
    expected = np.asarray(image.resize(resized, method))[top : top + 5, left : left + 5]
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


def test_nothing_to_do_returns_the_pixels_writable():
    image = noise(32, 32)
    got = EvalTransform(resize=32, crop=32)(image)
    np.testing.assert_array_equal(got, np.asarray(image))
    assert got.flags.writeable


def test_refuses_a_crop_that_does_not_fit():
    with pytest.raises(UserError, match="resize 224 is smaller than crop 256; choose resize >= crop"):
        EvalTransform(resize=224, crop=256)


def test_refuses_an_unknown_interpolation():
    with pytest.raises(UserError, match="interpolation 'cubic' is unknown; choose bilinear or bicubic"):
        EvalTransform(resize=8, crop=8, interpolation="cubic")
