"""Accuracy is exact for any batch size, and counts no padding."""

import csv

import numpy as np
import pytest
from PIL import Image
from tiny_data import CLASSES, SIDE, make_images

from mindspore_gpt4image.evaluation.classification import Predictions, log_softmax, predict, write_csv
from mindspore_gpt4image.sources.formats import list_images
from mindspore_gpt4image.sources.preprocessing import EvalTransform


def mean_colour(images):
    """Scores the classes blue, green, red by the mean of their channel, so the right answer is known."""
    return images.astype(np.float32).mean(axis=(1, 2))[:, ::-1] / 50


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    make_images(root, "val", 9)
    # One picture in the wrong folder: 26 of 27 are right.
    (root / "val" / "red" / "00.png").write_bytes((root / "val" / "blue" / "00.png").read_bytes())
    return list_images(root, "val")


@pytest.mark.parametrize("batch_size", [1, 8, 26, 27, 64])
def test_counts_do_not_depend_on_the_batch_size(images, batch_size):
    predictions = predict(mean_colour, images, EvalTransform(SIDE, SIDE), batch_size, workers=2)
    assert predictions.correct().sum() == 26
    assert predictions.accuracy(1) == pytest.approx(100 * 26 / 27)
    assert predictions.accuracy(5) == 100.0
    assert [row["correct"] for row in predictions.per_class()] == [9, 9, 8]


def test_the_file_names_every_image_and_class(images):
    result = predict(mean_colour, images, EvalTransform(SIDE, SIDE), 8, workers=1).to_dict()
    assert result["k"] == 3
    wrong = [row for row in result["predictions"] if row["predicted"][0] != row["class"]]
    assert [(row["id"], row["class"], row["predicted"][0]) for row in wrong] == [("val/red/00.png", "red", "blue")]
    assert all(sum(row["probabilities"]) == pytest.approx(1, abs=1e-5) for row in result["predictions"])
    assert [row["class"] for row in result["classes"]] == sorted(CLASSES)


def test_cross_entropy_is_the_mean_over_the_images(images):
    predictions = predict(mean_colour, images, EvalTransform(SIDE, SIDE), 8, workers=1)
    losses = []
    for position, label in enumerate(images.labels):
        pixels = EvalTransform(SIDE, SIDE)(Image.open(images.root / images.ids[position]))
        scores = mean_colour(pixels[None])[0].astype(np.float64)
        losses.append(np.log(np.exp(scores).sum()) - scores[label])
    assert predictions.cross_entropy == pytest.approx(np.mean(losses), rel=1e-6)


def test_equal_scores_go_to_the_first_class(images):
    predictions = Predictions(
        images, np.zeros((27, 1), np.int32), np.ones((27, 1), np.float32), np.zeros(27, np.float32)
    )
    assert predictions.accuracy() == pytest.approx(100 * 9 / 27)


def test_log_softmax_of_huge_logits_is_finite():
    scores = log_softmax(np.array([[1e4, 0.0], [-1e4, 1e4]], np.float32))
    assert scores.tolist() == [[0.0, -1e4], [-2e4, 0.0]]


def test_a_class_without_images_has_no_accuracy(images, tmp_path):
    make_images(tmp_path, "val", 1)
    some = list_images(tmp_path, "val", classes=("blue", "green", "none", "red"))
    predictions = Predictions(some, some.labels[:, None], np.ones((3, 1), np.float32), np.zeros(3, np.float32))
    empty = {"class": "none", "images": 0, "correct": 0, "top1": None, "precision": None, "f1": None}
    assert predictions.per_class()[2] == empty


def test_precision_recall_and_f1_equal_those_of_scikit_learn(images):
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    answers = random.integers(0, 2, (27, 1)).astype(np.int32)  # nothing is ever taken for red
    rows = Predictions(images, answers, np.ones((27, 1), np.float32), np.zeros(27, np.float32)).per_class()
    expected = metrics.precision_recall_fscore_support(images.labels, answers[:, 0], zero_division=0)
    for key, values in zip(("precision", "top1", "f1"), expected):
        assert [row[key] or 0 for row in rows] == pytest.approx((100 * values).tolist())
    assert rows[2]["precision"] is None and rows[2]["f1"] == 0


def test_answers_may_be_limited_to_some_classes(images):
    """Without blue, every image goes to green or red, and the best two are all there are."""
    limited = predict(mean_colour, images, EvalTransform(SIDE, SIDE), 8, workers=1, among=np.array([1, 2]))
    assert limited.classes.shape == (27, 2)
    assert set(limited.classes.ravel().tolist()) == {1, 2}
    assert limited.probabilities.sum(axis=1) == pytest.approx(1)


def test_the_csv_has_a_line_an_image(images, tmp_path):
    predictions = predict(mean_colour, images, EvalTransform(SIDE, SIDE), 8, workers=1)
    write_csv(predictions, tmp_path / "best.csv")
    with (tmp_path / "best.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == images.ids
    values = predictions.to_dict()["predictions"]
    for row, image in zip(rows, values):
        assert row["class"] == image["class"]
        assert [row[f"predicted{rank}"] for rank in (1, 2, 3)] == image["predicted"]
        assert [float(row[f"probability{rank}"]) for rank in (1, 2, 3)] == image["probabilities"]
