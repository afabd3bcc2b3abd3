"""Retrieval: does an image's embedding find the text that describes it among all texts?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mindspore import Tensor, nn

from mindspore_gpt4image.checkpoint import Checkpoint
from mindspore_gpt4image.data.store import EmbeddingStore
from mindspore_gpt4image.losses import normalize
from mindspore_gpt4image.models import Preprocess
from mindspore_gpt4image.sources.evaluation_batches import evaluation_batches
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.preprocessing import EvalTransform


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
    """Ranks of the right texts.

    Attributes:
        rank: int64 [n], for each image that has a text: how many of the texts score at least as high as the right one,
            itself included. So 1 is best, and embeddings that are all equal rank last, not first.
        texts: number of distinct texts.
    """

    rank: np.ndarray
    texts: int

    def recall(self, k: int) -> float:
        """R@k: percentage of images whose right text is among the k best."""
        return 100.0 * float((self.rank <= k).mean())

    def chance(self, k: int) -> float:
        """R@k of a random order, in percent."""
        return 100.0 * min(k, self.texts) / self.texts

    def to_dict(self) -> dict:
        values = {"images": len(self.rank), "texts": self.texts}
        for k in (1, 10):
            values[f"r{k}"], values[f"chance_r{k}"] = self.recall(k), self.chance(k)
        return values


def embedder_of(checkpoint: Checkpoint) -> Embed:
    """The checkpoint's network up to its image embedding, from raw pixels."""
    preprocess = Preprocess(checkpoint.model.mean, checkpoint.model.std)
    return Embed(checkpoint.create_network(), preprocess).set_train(False)


def retrieve(
    embed: nn.Cell, images: ImageSet, store: EmbeddingStore, transform: EvalTransform, batch_size: int, workers: int
) -> Retrieval | None:
    """Rank the store's distinct texts for every image that has one in it; None if no image has.

    Args:
        embed: uint8 [B, H, W, 3] -> normalised embeddings [B, k].
    """
    rows = store.locate(images.ids)
    positions = np.flatnonzero(rows >= 0)
    if not len(positions):
        return None
    _, first, text_of_row = np.unique(store.text_ids(store.ids), return_index=True, return_inverse=True)
    texts, _ = store.take(first)
    ranks = np.zeros(len(images), np.int64)
    for pixels, batch in evaluation_batches(images, positions, transform, batch_size, workers):
        scores = embed(Tensor(pixels)).asnumpy()[: len(batch)] @ texts.T
        right = np.take_along_axis(scores, text_of_row[rows[batch]][:, None], axis=1)
        ranks[batch] = (scores >= right).sum(axis=1)
    return Retrieval(ranks[positions], len(texts))
