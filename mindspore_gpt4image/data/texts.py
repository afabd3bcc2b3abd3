"""The join of images and text embeddings: by id, never by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Union

import numpy as np

from mindspore_gpt4image.data.store import EmbeddingStore, check_metadata
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.packed import read_pack

# Keeps the permutation of the control arm apart from the shuffles of the epochs, which use (seed, epoch).
_CONTROL_STREAM = 2**32 - 1


@dataclass(frozen=True, eq=False)
class TextTargets:
    """The text of every image of a split.

    Attributes:
        store: where the embeddings are.
        row: int64 [n], the store's row for each image, -1 where it has no text.
        mask_same_text: whether images with equal texts share a text id, which keeps them from being negatives.
        columns: what `batch` needs of the images' own records: nothing.
    """

    store: EmbeddingStore
    row: np.ndarray
    mask_same_text: bool = True
    columns: ClassVar[tuple[str, ...]] = ()

    @property
    def metadata(self) -> dict[str, Any]:
        """The store's."""
        return self.store.metadata

    def batch(self, positions: np.ndarray, rank: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """(text_emb float32 [B, k], text_id int32 [B]) for the images at `positions`, as `GPT4ImageLoss` takes them."""
        row = self.row[positions]
        has_text = row >= 0
        text_emb, text_id = self.store.take(np.where(has_text, row, 0))
        return _for_loss(text_emb, np.where(has_text, text_id, -1), self.mask_same_text, rank)


@dataclass(frozen=True, eq=False)
class PackedTexts:
    """Texts that are packed with their images and come along with them.

    Attributes:
        metadata: of the store that was packed.
        mask_same_text: see `TextTargets`.
        columns: the fields of the images' records that `batch` takes.
    """

    metadata: dict[str, Any]
    mask_same_text: bool = True
    columns: ClassVar[tuple[str, ...]] = ("embedding", "text_id")

    def batch(
        self, positions: np.ndarray, rank: int, embedding: np.ndarray, text_id: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `TextTargets.batch`, from the columns of the images at `positions`; `embedding` is bytes [B, …]."""
        text_emb = embedding.view(self.metadata["dtype"]).astype(np.float32)
        return _for_loss(text_emb, text_id, self.mask_same_text, rank)


Texts = Union[TextTargets, PackedTexts]


def made_from(texts: Texts) -> dict[str, str]:
    """What the embeddings are of: `encoder`, `text` and `descriptions_sha256`."""
    return {key: texts.metadata[key] for key in ("encoder", "text", "descriptions_sha256")}


def _for_loss(
    text_emb: np.ndarray, text_id: np.ndarray, mask_same_text: bool, rank: int
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings float32 [B, k] and ids [B], -1 without a text, as the loss takes them."""
    has_text = text_id >= 0
    if not mask_same_text:
        # Unique in the global batch: then the ids say only which rows have a text.
        text_id = rank * len(text_id) + np.arange(len(text_id))
    return np.where(has_text[:, None], text_emb, 0.0), np.where(has_text, text_id, -1).astype(np.int32)


def join_texts(
    images: ImageSet, store: EmbeddingStore, *, missing_text: str = "error", mask_same_text: bool = True
) -> TextTargets:
    """Find every image's text.

    Args:
        missing_text: "error" refuses images without a text; "skip" gives them text id -1.

    Raises:
        UserError: images lack a text (their number and the first three), or none has one.
    """
    row = store.locate(images.ids)
    missing = np.flatnonzero(row < 0)
    if len(missing) and (missing_text == "error" or len(missing) == len(row)):
        first = ", ".join(images.ids[position] for position in missing[:3])
        raise UserError(
            f"embedding store {store.path}: lacks {len(missing)} of the {len(row)} images of {images.root} "
            f"(first: {first}); encode descriptions of all images, or set data.missing_text=skip"
        )
    return TextTargets(store, row, mask_same_text)


def packed_texts(images: ImageSet, *, missing_text: str = "error", mask_same_text: bool = True) -> PackedTexts:
    """The texts that were packed with the images; `missing_text` as in `join_texts`.

    Raises:
        UserError: the set was packed without texts, or some images lack one.
    """
    pack = read_pack(images.root)
    if pack["texts"] is None:
        raise UserError(
            f"{images.root}: was packed without texts; pack it with --embeddings, or give a store as data.embeddings"
        )
    missing = pack["splits"][images.split]["without_text"]
    if missing and missing_text == "error":
        raise UserError(
            f"{images.root}: {missing} of the {len(images)} images of {images.split} were packed without a text; "
            "set data.missing_text=skip to train them without"
        )
    check_metadata(images.root, pack["texts"])
    return PackedTexts(pack["texts"], mask_same_text)


def shuffle_texts(texts: TextTargets, seed: int) -> TextTargets:
    """Deal the texts to other images by a seeded permutation; images without a text stay without one."""
    row = texts.row.copy()
    owners = np.flatnonzero(row >= 0)
    row[owners] = row[np.random.default_rng([seed, _CONTROL_STREAM]).permutation(owners)]
    return TextTargets(texts.store, row, texts.mask_same_text)
