from html.parser import HTMLParser

import numpy as np
import pytest
from tiny_data import make_images

from mindspore_gpt4image.evaluation.classification import Predictions
from mindspore_gpt4image.report.evaluation import (
    class_table,
    confusion,
    most_confident_mistakes,
    pair_table,
    write_evaluation_report,
)
from mindspore_gpt4image.sources.formats import list_images


class Sources(HTMLParser):
    """What a page would load when it is opened."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found += [value for key, value in attrs if key in ("src", "href")]


@pytest.fixture
def predictions(tmp_path):
    """Two images of blue, green and red: both blue right, green taken for blue and red, red once for blue."""
    make_images(tmp_path, "test", 2)
    images = list_images(tmp_path, "test")
    best = np.array([[0, 1], [0, 1], [0, 1], [2, 1], [2, 0], [0, 2]], np.int32)
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.7, 0.3], [0.9, 0.1], [0.95, 0.05]], np.float32)
    return Predictions(images, best, probabilities, np.log(np.full(6, 0.5, np.float32)))


def test_confusions_by_hand(predictions):
    assert confusion(predictions).tolist() == [[2, 0, 0], [1, 0, 1], [1, 0, 1]]
    assert pair_table(predictions).rows == [
        ["green", "blue", "1", "50.0"],
        ["green", "red", "1", "50.0"],
        ["red", "blue", "1", "50.0"],
    ]


def test_the_surest_mistakes_come_first(predictions):
    assert most_confident_mistakes(predictions, 2).tolist() == [5, 3]
    assert most_confident_mistakes(predictions, 9).tolist() == [5, 3, 2]


def test_the_worst_classes_come_first(predictions):
    """Blue is answered four times, two of them rightly: precision 50, recall 100, F1 2 * 2 / (2 + 4)."""
    assert class_table(predictions).rows == [
        ["green", "2", "–", "0.0", "0.0"],
        ["red", "2", "50.0", "50.0", "50.0"],
        ["blue", "2", "50.0", "100.0", "66.7"],
    ]


def test_the_page_needs_no_other_file(predictions, tmp_path):
    values = {"checkpoint": "<a>", "data": "data", "split": "test", **predictions.to_dict()}
    values["zero_shot"] = {"top1": 12.5, "top5": 50.0, "k": 3}
    write_evaluation_report(predictions, values, tmp_path / "report")
    page = (tmp_path / "report" / "eval.html").read_text()
    sources = Sources(page).found
    assert len(sources) == 4  # the confusion matrix and three mistakes
    assert all(source.startswith("data:image/") for source in sources)
    assert "&lt;a&gt;" in page and "12.50%" in page
    assert (tmp_path / "report" / "confusion.png").read_bytes().startswith(b"\x89PNG")
