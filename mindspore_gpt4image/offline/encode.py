"""Descriptions to an embedding store: every distinct text is encoded once."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..data.store import check_destination, index_file, read_metadata, write_store
from ..sources.descriptions import file_sha256, read_descriptions
from .text_encoder import TextEncoder

BATCH_SIZE = 256


def encode_descriptions(
    descriptions: str | Path,
    text: str,
    encoder: TextEncoder,
    output: str | Path,
    dtype: str = "float16",
    batch_size: int = BATCH_SIZE,
) -> dict[str, Any]:
    """Encode the texts under key `text` of a description set into an embedding store; returns its metadata.

    Images whose texts are equal share a `text_id`, counted from 0 in the file's order, and a bit-equal row.

    Raises:
        UserError: the descriptions cannot be read or lack texts, a text has no direction to normalise, or the store
            cannot be written.
    """
    check_destination(output, encoder.dim, dtype)
    text_of = read_descriptions(descriptions, text)
    texts = list(dict.fromkeys(text_of.values()))
    number = {text: i for i, text in enumerate(texts)}
    text_ids = np.array([number[text] for text in text_of.values()])
    ...
