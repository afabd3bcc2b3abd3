"""Nearest class means without a text's own part, against loops that say it literally."""

import numpy as np
import pytest

from mindspore_gpt4image.report import separability as module
from mindspore_gpt4image.report.separability import separability


class Store:
    def __init__(self, rows, text_ids):
        self.rows, self.text_ids, self.dim = rows, text_ids, rows.shape[1]

    def take(self, numbers):
        return self.rows[numbers], self.text_ids[numbers]


def by_loops(rows, text_ids, labels, classes):
    nearest, margins = [], []
    for i in range(len(rows)):
        scores = []
        for c in range(classes):
            others = [rows[j] for j in range(len(rows)) if labels[j] == c and text_ids[j] != text_ids[i]]
            mean = np.mean(others, axis=0) if others else None
            scores.append(-np.inf if mean is None else rows[i] @ mean / np.linalg.norm(mean))
        nearest.append(int(np.argmax(scores)))
        margins.append(scores[labels[i]] - max(score for c, score in enumerate(scores) if c != labels[i]))
    return np.array(nearest), np.array(margins)


@pytest.mark.parametrize("block", [4096, 7])
def test_equals_the_loops(monkeypatch, block):
    """Texts that come several times, in one class and in several, and a class that has one text only."""
    monkeypatch.setattr(module, "_BLOCK", block)
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 60)
    text_ids = random.integers(0, 30, 60)
    labels[:3], text_ids[:3] = 4, 99
    texts = random.standard_normal((100, 8))
    texts += 0.7 * np.eye(8)[random.integers(0, 4, 100)]
    rows = (texts / np.linalg.norm(texts, axis=1, keepdims=True))[text_ids].astype(np.float32)
    # The set's order is not the store's.
    order = random.permutation(60)
    found = separability(Store(rows, text_ids), order, labels[order], 5)
    nearest, margins = by_loops(rows, text_ids, labels, 5)
    np.testing.assert_array_equal(found.nearest, nearest[order])
    np.testing.assert_allclose(found.margin, margins[order], atol=1e-6)
    assert found.accuracy == np.mean(nearest == labels)
    assert np.isneginf(found.margin[labels[order] == 4]).all()
    assert (found.rival != found.label).all()


def test_clear_and_hopeless_classes():
    clear = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    labels = np.repeat(np.arange(3), 4)
    found = separability(Store(clear, np.arange(12)), np.arange(12), labels, 3)
    assert found.accuracy == 1
    np.testing.assert_allclose(found.margin, 1)
    # One text for all: taken out of every mean, it has none to be near to.
    same = separability(Store(clear[:1].repeat(12, axis=0), np.zeros(12, int)), np.arange(12), labels, 3)
    assert not np.isfinite(same.margin).any()
