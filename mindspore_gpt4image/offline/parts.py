"""The texts of a description set in parts: what is encoded at a time, and kept when a run is killed."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import replacing
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.offline.text_table import TextTable

if TYPE_CHECKING:
    from mindspore_gpt4image.offline.text_encoder import TextEncoder

OVERFLOWS = ("truncate", "mean-sentences")
PART_BATCHES = 16

_BLOCK_ROWS = 4096
_POLL_SECONDS = 0.2
_OPEN_FILES = 8
_NORM_TOLERANCE = 1e-3
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


class Parts:
    """The parts of the texts, `PART_BATCHES` batches each, and their files: arrays of records, one a text.

    The fields of a record: its `embedding`, of the store's type [k]; how many `tokens` the text has; whether it was
    `cut`.

    Args:
        folder: where the files are.
        table: the texts.
        dtype: of the embeddings in the files.
        overflow: "truncate" cuts a text that is longer than the encoder reads; "mean-sentences" takes the mean of the
            embeddings of its sentences.
    """

    def __init__(
        self,
        folder: Path,
        table: TextTable,
        encoder: TextEncoder,
        dtype: str = "float16",
        overflow: str = "truncate",
        batch_size: int = 32,
    ):
        self.folder = folder
        self.table = table
        self.encoder = encoder
        self.overflow = overflow
        self.batch_size = batch_size
        self.size = PART_BATCHES * batch_size
        self.count = -(-table.texts // self.size)
        self.record = np.dtype([("embedding", dtype, (encoder.dim,)), ("tokens", np.int32), ("cut", np.bool_)])
        self._open = lru_cache(_OPEN_FILES)(lambda part: np.load(self._path(part), mmap_mode="r"))

    def encode(self, ranks: Ranks) -> tuple[int, float]:
        """Encode the parts of a rank that are not there; returns how many texts, and the seconds they took.

        Raises:
            UserError: a text is nothing to the encoder, or its embedding has no direction; names the image.
        """
        mine = range(ranks.rank, self.count, ranks.world)
        todo = [part for part in mine if not self._path(part).exists()]
        total, encoded = self._texts(mine), self._texts(todo)
        name = f"rank {ranks.rank} of {ranks.world}" if ranks.world > 1 else None
        start = time.perf_counter()
        with tqdm(total=total, initial=total - encoded, desc=name, unit="text", disable=None) as progress:
            for part in todo:
                records = np.empty(len(self._range(part)), self.record)
                before = progress.n
                for done in self._encode_part(part, records):
                    progress.update(before + done - progress.n)
                with replacing(self._path(part)) as temporary:
                    np.save(temporary, records)
        return encoded, time.perf_counter() - start

    def wait(self) -> None:
        """Until the parts of all ranks are there."""
        with tqdm(total=self.count, desc="parts of all ranks", unit="part", disable=None) as progress:
            for part in range(self.count):
                while not self._path(part).exists():
                    time.sleep(_POLL_SECONDS)
                progress.update()

    def lengths(self) -> dict[str, Any]:
        """The share of images whose text was cut (`truncated`), and how many have a text of how many `tokens`."""
        cut, tokens = 0, Counter()
        for part in range(self.count):
            records, images = self._open(part), self.table.images_of_texts(self._range(part))
            cut += int(images[records["cut"]].sum())
            for length, count in zip(records["tokens"].tolist(), images.tolist()):
                tokens[length] += count
        return {"truncated": cut / self.table.images, "tokens": sorted(tokens.items())}

    def rows(self) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
        """Blocks of ids, text numbers and embeddings of all images, in the file's order."""
        for ids, numbers in self.table.blocks(_BLOCK_ROWS):
            rows = np.empty((len(ids), self.encoder.dim), self.record["embedding"].base)
            parts = numbers // self.size
            for part in np.unique(parts).tolist():
                here = parts == part
                rows[here] = self._open(part)["embedding"][numbers[here] - part * self.size]
            yield ids, numbers, rows

    def _encode_part(self, part: int, records: np.ndarray) -> Iterator[int]:
        """Fill the records; yields after each batch about how many texts are done."""
        encoder = self.encoder
        texts = self.table.texts_in(self._range(part))
        records["tokens"] = encoder.token_counts(texts)
        for number in np.flatnonzero(records["tokens"] <= encoder.empty_count):
            raise self._refusal(part, number, "holds nothing that the text encoder reads; say it in words")
        pieces, owner, tokens = self._pieces(texts, records["tokens"])
        records["cut"] = False
        records["cut"][owner[tokens > encoder.context_length]] = True

        # Pieces of like length share a batch, which is padded to its longest. The longest go first, so that a batch
        # too large for the device fails at once.
        embeddings = np.empty((len(pieces), encoder.dim), np.float32)
        order = np.argsort(-tokens, kind="stable")
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            embeddings[batch] = encoder.encode([pieces[i] for i in batch])
            norms = np.linalg.norm(embeddings[batch], axis=1)
            for piece in batch[~(np.abs(norms - 1) <= _NORM_TOLERANCE)]:  # so that NaN is found
                fault = f"gets an embedding in {encoder.precision} that has no direction; choose another precision"
                raise self._refusal(part, owner[piece], fault)
            yield (start + len(batch)) * len(texts) // len(pieces)
        records["embedding"] = _means(embeddings, owner, len(texts))

    def _pieces(self, texts: Sequence[str], tokens: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
        """What is encoded: whole texts, or sentences of those too long; to which text each belongs; its tokens."""
        encoder = self.encoder
        if self.overflow == "truncate" or (tokens <= encoder.context_length).all():
            return list(texts), np.arange(len(texts)), tokens
        pieces, owner, counts = [], [], []
        for number, (text, count) in enumerate(zip(texts, tokens.tolist())):
            parts = [(text, count)]
            if count > encoder.context_length:
                sentences = split_sentences(text)
                of_sentences = zip(sentences, encoder.token_counts(sentences).tolist())
                parts = [(each, n) for each, n in of_sentences if n > encoder.empty_count] or parts
            pieces += [each for each, _ in parts]
            counts += [n for _, n in parts]
            owner += [number] * len(parts)
        return pieces, np.array(owner), np.array(counts)

    def _refusal(self, part: int, number: int, fault: str) -> UserError:
        id = self.table.first_id(self._range(part).start + int(number))
        return UserError(f"{self.table.descriptions}: the text of id {id!r} {fault}")

    def _path(self, part: int) -> Path:
        return self.folder / f"part-{part:06d}.npy"

    def _range(self, part: int) -> range:
        """The numbers of its texts."""
        return range(part * self.size, min((part + 1) * self.size, self.table.texts))

    def _texts(self, parts: Sequence[int]) -> int:
        return sum(len(self._range(part)) for part in parts)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, by punctuation and line breaks."""
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def _means(embeddings: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Unit means [count, k] of the unit embeddings [p, k] that have one owner each; one alone stays bit-equal."""
    if len(owner) == count:
        return embeddings
    means = np.zeros((count, embeddings.shape[1]))
    np.add.at(means, owner, embeddings)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    alone = np.bincount(owner, minlength=count)[owner] == 1
    means[owner[alone]] = embeddings[alone]
    return means
