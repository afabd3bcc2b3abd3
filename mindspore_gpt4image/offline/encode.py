"""From a description set to an embedding store."""

from __future__ import annotations

import importlib.metadata
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mindspore_gpt4image.data.store import check_destination, check_file, read_metadata, write_store
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.descriptions import file_sha256, read_descriptions

if TYPE_CHECKING:
    from mindspore_gpt4image.offline.text_encoder import TextEncoder

_BLOCK = 4096


@dataclass(frozen=True)
class Encoding:
    """What was encoded.

    Attributes:
        metadata: the store's.
        texts: how many distinct texts there were.
        seconds: what encoding them took.
    """

    metadata: dict[str, Any]
    texts: int
    seconds: float


def encode_descriptions(
    descriptions: str | Path,
    text: str,
    encoder: TextEncoder,
    output: str | Path,
    *,
    dtype: str = "float16",
    batch_size: int = 256,
) -> Encoding:
    """Encode the texts under key `text` of a description set into an embedding store; an older one is replaced.

    Each distinct text is encoded once: images with equal texts share a `text_id` (counted from 0 in the file's order)
    and a bit-equal row. The metadata's `truncated` is the share of images whose text is longer than the encoder reads.

    Raises:
        UserError: the description set is at fault (`read_descriptions`), an embedding cannot be normalised, or the
            store cannot be written (`write_store`).
    """
    check_destination(output, encoder.dim, dtype)
    text_of = read_descriptions(descriptions, text)
    texts = list(dict.fromkeys(text_of.values()))
    number = {each: i for i, each in enumerate(texts)}
    text_ids = np.array([number[each] for each in text_of.values()], np.int64)

    start = time.perf_counter()
    token_counts = np.concatenate([encoder.token_counts(texts[i : i + _BLOCK]) for i in range(0, len(texts), _BLOCK)])
    embeddings = _encode(encoder, texts, token_counts, dtype, batch_size)
    seconds = time.perf_counter() - start

    too_long = token_counts > encoder.context_length
    metadata = {
        "encoder": encoder.name,
        "text": text,
        "truncated": float(too_long[text_ids].mean()),
        "descriptions_sha256": file_sha256(descriptions),
        "versions": {package: importlib.metadata.version(package) for package in ("torch", "transformers")},
    }
    blocks = (embeddings[text_ids[i : i + _BLOCK]] for i in range(0, len(text_ids), _BLOCK))
    write_store(output, list(text_of), text_ids, blocks, metadata, dtype)
    return Encoding(read_metadata(output), len(texts), seconds)


def is_encoded(output: str | Path, descriptions: str | Path, text: str, encoder: str, dtype: str) -> bool:
    """Whether `output` is whole and was made from just this; `UserError` if it is a file that is no embedding store."""
    output = Path(output)
    if not output.exists():
        return False
    try:
        metadata = read_metadata(output)
    except UserError as error:
        raise UserError(f"{output}: is there and no embedding store; delete it or choose another name") from error
    try:
        check_file(output)
    except UserError:
        return False
    asked = {"descriptions_sha256": file_sha256(descriptions), "text": text, "encoder": encoder, "dtype": dtype}
    return asked.items() <= metadata.items()


def _encode(encoder: TextEncoder, texts: list[str], token_counts: np.ndarray, dtype: str, batch_size: int):
    """Embeddings [t, k]; texts of like length share a batch, which is padded to its longest, and the longest go first
    so that a batch too large for the device fails at once."""
    embeddings = np.empty((len(texts), encoder.dim), dtype)
    order = np.argsort(-token_counts, kind="stable")
    with tqdm(total=len(texts), unit="text", disable=None) as progress:
        for start in range(0, len(texts), batch_size):
            batch = order[start : start + batch_size]
            embeddings[batch] = encoder.encode([texts[i] for i in batch])
            progress.update(len(batch))
    return embeddings
