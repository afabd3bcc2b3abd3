"""How well text embeddings alone tell the classes apart: Sec. 4.5 of the paper as a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mindspore_gpt4image.data.store import EmbeddingStore

_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Separability:
    """Each image's text against the mean embedding of every class, its own text taken out of them.

    Attributes:
        label: int [n], the class of each image.
        nearest: int [n], the class whose mean is the nearest to its text.
        rival: int [n], the nearest of the other classes.
        margin: float [n], cosine to its own class less that to the rival; -inf where its class has no other text.
    """

    label: np.ndarray
    nearest: np.ndarray
    rival: np.ndarray
    margin: np.ndarray

    @property
    def accuracy(self) -> float:
        """The share of images whose text is nearest to their own class."""
        return float(np.mean(self.nearest == self.label))


def separability(store: EmbeddingStore, rows: np.ndarray, labels: np.ndarray, classes: int) -> Separability:
    """Nearest class mean, by cosine; a text is left out of every mean that it is tried against.

    Otherwise equal texts in a class, or a class of one text, would be found by themselves. In memory are the means
    [classes, k] and a block of rows.

    Args:
        rows: int64 [n], row numbers in the store.
        labels: int [n] in 0 … classes - 1.
    """
    text_ids = np.concatenate([store.take(part)[1] for part in _blocks(rows)])
    # Images of one class with one text stand together: a pair of text and class, and how many there are of it.
    _, text = np.unique(text_ids, return_inverse=True)
    pairs, first, pair, counts = np.unique(
        text.astype(np.int64) * classes + labels, return_index=True, return_inverse=True, return_counts=True
    )
    text, label, row = pairs // classes, pairs % classes, rows[first]
    # Of a text that several classes have, each pair needs the counts in all of them.
    start = np.searchsorted(text, text, side="left")
    stop = np.searchsorted(text, text, side="right")

    sums = np.zeros((classes, store.dim))
    for part in _blocks(np.arange(len(pairs))):
        np.add.at(sums, label[part], counts[part, None] * store.take(row[part])[0])
    totals = np.bincount(label, counts, classes)
    squares = (sums**2).sum(axis=1)

    nearest, rival, margin = (np.empty(len(pairs), kind) for kind in (np.int64, np.int64, np.float64))
    for part in _blocks(np.arange(len(pairs))):
        embeddings = store.take(row[part])[0].astype(np.float64)
        dots = embeddings @ sums.T
        own = (embeddings**2).sum(axis=1)
        norms = np.broadcast_to(squares, dots.shape).copy()
        left = np.broadcast_to(totals, dots.shape).copy()
        for offset in range(int((stop[part] - start[part]).max())):
            at = start[part] + offset
            here = np.flatnonzero(at < stop[part])
            column, count = label[at[here]], counts[at[here]]
            norms[here, column] += own[here] * count**2 - 2 * count * dots[here, column]
            dots[here, column] -= count * own[here]
            left[here, column] -= count
        scores = np.where(left > 0, dots / np.sqrt(np.maximum(norms, 1e-12)), -np.inf)
        nearest[part] = scores.argmax(axis=1)
        here = np.arange(len(part))
        mine = scores[here, label[part]]
        scores[here, label[part]] = -np.inf
        rival[part] = scores.argmax(axis=1)
        margin[part] = np.where(np.isfinite(mine), mine - np.maximum(scores.max(axis=1), -1), -np.inf)
    return Separability(labels, nearest[pair], rival[pair], margin[pair])


def _blocks(values: np.ndarray) -> list[np.ndarray]:
    return [values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK)]
