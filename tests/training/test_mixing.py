"""Mixup, cutmix and erasing against plain NumPy, and the draws of the host."""

import math

import numpy as np
import pytest
from mindspore import Tensor
from scipy import stats

from mindspore_gpt4image.training.mixing import UNMIXED, Erase, Mix, Mixing, draw_boxes

BATCH, SIDE, CLASSES, TEXT_DIM = 5, 8, 4, 3


def make_batch():
    random = np.random.default_rng(0)
    return (
        random.standard_normal((BATCH, 3, SIDE, SIDE)).astype(np.float32),
        random.integers(0, CLASSES, BATCH).astype(np.int32),
        random.standard_normal((BATCH, TEXT_DIM)).astype(np.float32),
        np.array([0, 1, 2, -1, 4], np.int32),
    )


@pytest.fixture(scope="module")
def mix_cell():
    cell = Mix()
    return lambda batch, mix: [x.asnumpy() for x in cell(*map(Tensor, batch), Tensor(mix), CLASSES)]


def expected_targets(batch, share):
    _, labels, text, ids = batch
    one_hot = np.eye(CLASSES)[labels]
    text_share = np.where(ids[::-1] < 0, 1, share)[:, None]
    return share * one_hot + (1 - share) * one_hot[::-1], text_share * text + (1 - text_share) * text[::-1]


def test_mixup_mixes_images_labels_and_texts_with_one_coefficient(mix_cell):
    batch = make_batch()
    images, targets, text = mix_cell(batch, np.array([0.3, 0.3, 0, 0, 0, 0], np.float32))
    np.testing.assert_allclose(images, 0.3 * batch[0] + 0.7 * batch[0][::-1], rtol=1e-5, atol=1e-6)
    for result, expected in zip((targets, text), expected_targets(batch, 0.3)):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_cutmix_replaces_the_box_and_weighs_by_area(mix_cell):
    batch = make_batch()
    share = 1 - 3 * 4 / SIDE**2
    images, targets, text = mix_cell(batch, np.array([share, 1, 2, 4, 5, 8], np.float32))
    expected = batch[0].copy()
    expected[:, :, 2:5, 4:8] = batch[0][::-1, :, 2:5, 4:8]
    np.testing.assert_array_equal(images, expected)
    for result, target in zip((targets, text), expected_targets(batch, share)):
        np.testing.assert_allclose(result, target, rtol=1e-5, atol=1e-6)


def test_unmixed_is_the_identity(mix_cell):
    batch = make_batch()
    images, targets, text = mix_cell(batch, UNMIXED)
    np.testing.assert_array_equal(images, batch[0])
    np.testing.assert_array_equal(targets, np.eye(CLASSES, dtype=np.float32)[batch[1]])
    np.testing.assert_array_equal(text, batch[2])


def test_draws_are_those_of_the_recipe():
    """Over 4,000 batches: how often cutmix, the Beta distribution of mixup's share, and the true area of the boxes."""
    mixing = Mixing(mixup=0.8, cutmix=1.0, probability=0.9, switch=0.5)
    draws = np.array([mixing.draw(np.random.default_rng([7, n]), 32) for n in range(4000)])
    share, pixel_share, top, left, bottom, right = draws.T
    is_mixup = pixel_share < 1
    is_cutmix = (pixel_share == 1) & (bottom > top)
    assert is_mixup.mean() == pytest.approx(0.45, abs=0.03)
    assert stats.kstest(share[is_mixup], stats.beta(0.8, 0.8).cdf).pvalue > 1e-3
    np.testing.assert_allclose(share[~is_mixup], (1 - (bottom - top) * (right - left) / 32**2)[~is_mixup], rtol=1e-6)
    assert (draws[:, 2:] >= 0).all() and (draws[:, 2:] <= 32).all() and (draws == np.round(draws))[:, 2:].all()
    # Uncut boxes have the area of a uniform share, rounded down to even sides.
    assert is_cutmix.mean() == pytest.approx(0.45, abs=0.03)
    assert np.array_equal(mixing.draw(np.random.default_rng([7, 3]), 32), draws[3].astype(np.float32))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0)])
def test_one_of_the_two_alone(mixup, cutmix):
    draws = np.array([Mixing(mixup, cutmix).draw(np.random.default_rng(n), 32) for n in range(50)])
    assert ((draws[:, 1] < 1) == (mixup > 0)).all()


def test_boxes_of_erasing_have_the_sizes_of_the_recipe():
    side, probability = 64, 0.25
    boxes = draw_boxes(np.random.default_rng(0), 20_000, side, probability)
    height, width = (boxes[:, 2:] - boxes[:, :2]).T
    erased = height * width > 0
    assert erased.mean() == pytest.approx(probability, abs=0.02)
    area, aspect = (height * width)[erased] / side**2, (height / np.maximum(width, 1))[erased]
    assert area.min() > 0.015 and area.max() < 0.35
    assert 0.25 < aspect.min() < 0.4 and 2.5 < aspect.max() < 3.9
    assert np.median(np.log(aspect)) == pytest.approx(0, abs=0.05)
    assert (boxes >= 0).all() and (boxes <= side).all()


def test_erasing_fills_the_box_with_normal_noise_of_the_step_and_nothing_else():
    side = 48
    images = np.full((4, 3, side, side), 7, np.float32)
    boxes = np.array([[0, 0, 48, 47], [5, 6, 20, 40], [0, 0, 0, 0], [10, 10, 11, 11]], np.int32)
    cell = Erase()

    def erase(seed, step):
        return cell(Tensor(images), Tensor(boxes), Tensor(np.array([seed, step], np.int32))).asnumpy()

    result = erase(3, 5)
    inside = np.zeros(images.shape, bool)
    for row, (top, left, bottom, right) in enumerate(boxes):
        inside[row, :, top:bottom, left:right] = True
    assert (result[~inside] == 7).all()
    noise = result[inside]
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert len(np.unique(noise)) > 0.99 * len(noise)
    first = result[0, :, :, :47]
    for one, other in ((first[0], first[1]), (first[:, :-1], first[:, 1:]), (first[:, :, :-1], first[:, :, 1:])):
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / math.sqrt(one.size)
    np.testing.assert_array_equal(erase(3, 5), result)
    for other in (erase(3, 6), erase(4, 5)):
        assert abs(np.corrcoef(other[inside], noise)[0, 1]) < 5 / math.sqrt(noise.size)
