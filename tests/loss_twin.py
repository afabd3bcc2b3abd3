"""The losses once more, in NumPy float64 with plain loops as the paper writes them: what losses.py is compared with.

Slow, and without a line in common with the package. Gradients are central differences.
"""

import math

import numpy as np


def unit(x):
    return x / math.sqrt(float(x @ x))


def log_sum_exp(terms):
    largest = max(terms)
    return largest + math.log(sum(math.exp(term - largest) for term in terms))


def cross_entropy(logits, labels, smoothing=0.0):
    """Mean of -sum_c q_c log softmax(logits)_c; labels are class indices or rows of probabilities."""
    total = 0.0
    for row, label in zip(np.asarray(logits, np.float64), labels):
        probabilities = label if np.ndim(label) else [float(c == label) for c in range(len(row))]
        normaliser = log_sum_exp(row)
        for value, probability in zip(row, probabilities):
            total -= ((1 - smoothing) * float(probability) + smoothing / len(row)) * (value - normaliser)
    return total / len(logits)


def alignment_rows(kind, image_emb, text_emb, text_id=None, text_target=None, tau=0.5):
    """The alignment loss of each row. Sums run over the pairs that are left: no equal texts, no row without a text."""
    images = np.asarray(image_emb, np.float64)
    texts = np.asarray(text_emb, np.float64)
    targets = texts if text_target is None else np.asarray(text_target, np.float64)
    rows = range(len(images))
    ids = list(rows) if text_id is None else [int(i) for i in text_id]
    with_text = [i for i in rows if ids[i] >= 0]
    losses = np.zeros(len(images))
    units = {i: unit(images[i]) for i in with_text}
    for i in with_text:
        pairs = [j for j in with_text if j == i or ids[j] != ids[i]]
        positive = units[i] @ targets[i] / tau
        to_text = log_sum_exp([units[i] @ texts[j] / tau for j in pairs]) - positive
        if kind == "infonce":
            losses[i] = to_text
        elif kind == "clip":
            to_image = log_sum_exp([units[j] @ texts[i] / tau for j in pairs]) - positive
            losses[i] = (to_text + to_image) / 2
        elif kind == "cosine":
            losses[i] = 2 - 2 * float(units[i] @ targets[i])
    return losses


def gradient(function, x, step=1e-6):
    """Of a number with respect to the array x, by central differences."""
    x = np.array(x, np.float64)
    result = np.zeros_like(x)
    for position in np.ndindex(*x.shape):
        value = x[position]
        x[position] = value + step
        above = function(x)
        x[position] = value - step
        below = function(x)
        x[position] = value
        result[position] = (above - below) / (2 * step)
    return result


def difference(actual, expected):
    """Largest difference, relative to the largest expected number (absolute where all of them are 0)."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, f"{actual.shape} against {expected.shape}"
    assert np.isfinite(actual).all()
    return float(np.abs(actual - expected).max() / (np.abs(expected).max() or 1))


def unit_rows(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)
