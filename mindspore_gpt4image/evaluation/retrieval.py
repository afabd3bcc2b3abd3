"""Images and texts in one space: retrieval both ways, classification from class names, and how the space is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from mindspore_gpt4image.checkpoint import Checkpoint
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.losses import normalize
from mindspore_gpt4image.models import Preprocess
from mindspore_gpt4image.sources.evaluation_batches import evaluation_batches
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.preprocessing import EvalTransform

RECALLS = (1, 5, 10)
UNIFORMITY_ROWS = 5000
_BLOCK_ROWS = 256


class Embed(nn.Cell):
    """Pixels uint8 [B, H, W, 3] to normalised image embeddings, float32 [B, k], in evaluation mode."""

    def __init__(self, network: nn.Cell, preprocess: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network
        self.preprocess = preprocess

    def construct(self, images: Tensor) -> Tensor:
        _, image_emb = self.network(self.preprocess(images))
        return normalize(image_emb)


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Ranks of the right answers.

    Attributes:
        rank: int64 [n], for each query: how many candidates that are wrong score at least as high as the best right
            one, plus 1. So 1 is best, and embeddings that are all equal rank last, not first.
        right: int64 [n], how many of the candidates are right.
        candidates: how many there are.
    """

    rank: np.ndarray
    right: np.ndarray
    candidates: int

    def recall(self, k: int) -> float:
        """R@k: percentage of queries with a right answer among the k best."""
        return 100.0 * float((self.rank <= k).mean())

    def chance(self, k: int) -> float:
        """R@k of a random order, in percent: 1 - C(N - m, k) / C(N, k) for m right ones among N candidates."""
        missed = np.ones(len(self.right))
        for drawn in range(min(k, self.candidates)):
            missed *= np.maximum(self.candidates - self.right - drawn, 0) / (self.candidates - drawn)
        return 100.0 * float(1 - missed.mean())

    def to_dict(self) -> dict[str, float]:
        return {
            name: value
            for k in RECALLS
            for name, value in ((f"r{k}", self.recall(k)), (f"chance_r{k}", self.chance(k)))
        }


@dataclass(frozen=True, eq=False)
class ImageText:
    """What image embeddings and text embeddings have to do with each other on a split.

    Attributes:
        image_to_text: each image that has a text looks for it among all distinct texts of the store.
        text_to_image: each distinct text of these images looks for one of its images among them.
        alignment: mean squared distance of an image's and its text's unit embeddings, 0 (equal) to 4 (Wang and Isola,
            "Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere").
        uniformity: log of the mean over pairs of images of exp(-2 squared distance), from 0 (all in one point) down to
            about -4 (spread out evenly); over at most `UNIFORMITY_ROWS` images.
        text_uniformity: that of the distinct texts.
    """

    image_to_text: Retrieval
    text_to_image: Retrieval
    alignment: float
    uniformity: float
    text_uniformity: float

    def to_dict(self) -> dict[str, Any]:
        """As evaluation writes it: the keys of image to text, and those of text to image below `text_to_image`."""
        return {
            "images": len(self.image_to_text.rank),
            "texts": self.image_to_text.candidates,
            **self.image_to_text.to_dict(),
            "text_to_image": {"texts": len(self.text_to_image.rank), **self.text_to_image.to_dict()},
            "alignment": self.alignment,
            "uniformity": self.uniformity,
            "text_uniformity": self.text_uniformity,
        }


def embedder_of(checkpoint: Checkpoint, weights: str = "plain") -> Embed:
    """The checkpoint's network up to its image embedding, from raw pixels; weights as `Checkpoint.parameters` says."""
    preprocess = Preprocess(checkpoint.model.mean, checkpoint.model.std)
    return Embed(checkpoint.create_network(weights), preprocess).set_train(False)


def embed_images(
    embed: nn.Cell, images: ImageSet, transform: EvalTransform, batch_size: int, workers: int
) -> np.ndarray:
    """Normalised embeddings of all images, float32 [n, k].

    Args:
        embed: uint8 [B, H, W, 3] -> normalised embeddings [B, k].
    """
    positions = np.arange(len(images))
    parts = [
        embed(Tensor(pixels)).asnumpy()[: len(batch)]
        for pixels, batch in evaluation_batches(images, positions, transform, batch_size, workers)
    ]
    return np.concatenate(parts)


def retrieve(embeddings: np.ndarray, ids: Sequence[str], store: EmbeddingStore) -> ImageText | None:
    """Compare image embeddings with the store's texts; None if no image has a text in it.

    Args:
        embeddings: normalised, float32 [n, k].
        ids: of the images.
    """
    rows = store.locate(ids)
    described = np.flatnonzero(rows >= 0)
    if not len(described):
        return None
    _, first, text_of_row = np.unique(store.text_ids(store.ids), return_index=True, return_inverse=True)
    texts, _ = store.take(first)
    text_of_image = text_of_row[rows[described]]
    images = embeddings[described]
    own, image_text = np.unique(text_of_image, return_inverse=True)
    return ImageText(
        image_to_text(images, texts, text_of_image),
        text_to_image(texts[own], images, image_text),
        alignment=float(((images - texts[text_of_image]) ** 2).sum(axis=1).mean()),
        uniformity=uniformity(images),
        text_uniformity=uniformity(texts),
    )


def image_to_text(images: np.ndarray, texts: np.ndarray, text_of_image: np.ndarray) -> Retrieval:
    """Each image looks for its text.

    Args:
        images: normalised, [n, k]; texts: [m, k], no two of them the same text.
        text_of_image: int [n], positions in `texts`.
    """
    ranks = []
    for begin in range(0, len(images), _BLOCK_ROWS):
        scores = images[begin : begin + _BLOCK_ROWS] @ texts.T
        right = np.take_along_axis(scores, text_of_image[begin : begin + _BLOCK_ROWS, None], axis=1)
        ranks.append((scores >= right).sum(axis=1))
    return Retrieval(np.concatenate(ranks), np.ones(len(images), np.int64), len(texts))


def text_to_image(texts: np.ndarray, images: np.ndarray, text_of_image: np.ndarray) -> Retrieval:
    """Each text looks for one of the images that it describes; arguments as in `image_to_text`, each text has one."""
    ranks, counts = [], []
    for begin in range(0, len(texts), _BLOCK_ROWS):
        scores = texts[begin : begin + _BLOCK_ROWS] @ images.T
        right = text_of_image == np.arange(begin, begin + len(scores))[:, None]
        best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
        ranks.append(1 + (~right & (scores >= best)).sum(axis=1))
        counts.append(right.sum(axis=1))
    return Retrieval(np.concatenate(ranks), np.concatenate(counts), len(images))


def uniformity(embeddings: np.ndarray) -> float:
    """Log of the mean over all pairs of different rows of exp(-2 |x - y|^2); rows of unit length [n, k].

    Of more than `UNIFORMITY_ROWS` rows as many are drawn, always the same.
    """
    if len(embeddings) > UNIFORMITY_ROWS:
        embeddings = np.random.default_rng(0).choice(embeddings, UNIFORMITY_ROWS, replace=False)
    if len(embeddings) < 2:
        return 0.0
    # |x - y|^2 = 2 - 2 x.y; a row's pair with itself is taken out again.
    closeness = np.exp(4.0 * (embeddings.astype(np.float64) @ embeddings.T - 1))
    pairs = len(embeddings) * (len(embeddings) - 1)
    return float(np.log((closeness.sum() - np.trace(closeness)) / pairs))


def zero_shot(embeddings: np.ndarray, images: ImageSet, store: EmbeddingStore) -> dict[str, float]:
    """Classify by the nearest text of a class, without the classifier: top-1 and top-5 in percent.

    Args:
        embeddings: of the images, normalised, float32 [n, k].
        store: texts of the classes, whose ids are the classes' names.

    Raises:
        UserError: a class has no text.
    """
    rows = store.locate(images.classes)
    if missing := [name for name, row in zip(images.classes, rows) if row < 0]:
        raise UserError(
            f"{store.path}: has no text of {len(missing)} of the {len(images.classes)} classes (first: {missing[0]}); "
            "its ids must be the names of the classes"
        )
    scores = embeddings @ store.rows(images.classes).T
    right = np.take_along_axis(scores, images.labels[:, None].astype(np.int64), axis=1)
    # Ties count against: a collapsed space must not look right.
    rank = (scores >= right).sum(axis=1)
    k = min(5, len(images.classes))
    return {"top1": 100.0 * float((rank <= 1).mean()), "top5": 100.0 * float((rank <= k).mean()), "k": k}
