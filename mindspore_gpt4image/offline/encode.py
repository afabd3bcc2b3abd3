"""From a description set to an embedding store, in parts that survive a kill and that several processes share.

While a store is made, a hidden folder beside it holds the distinct texts and the parts that are encoded. What is there
need not be done again; once all is there the store is written from it.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from mindspore_gpt4image.data.store import check_destination, check_file, read_metadata, write_blocks
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.parts import Parts
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.offline.text_table import TextTable
from mindspore_gpt4image.sources.descriptions import file_sha256

if TYPE_CHECKING:
    from mindspore_gpt4image.offline.text_encoder import TextEncoder

_ALONE = Ranks()
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Encoding:
    """What was encoded.

    Attributes:
        metadata: the store's.
        texts: how many distinct texts there are.
        encoded: how many of them were encoded by this process, not by another or before a kill.
        seconds: what that took.
    """

    metadata: dict[str, Any]
    texts: int
    encoded: int
    seconds: float


def made_from(
    descriptions: str | Path, text: str, encoder: TextEncoder, dtype: str = "float16", overflow: str = "truncate"
) -> dict[str, Any]:
    """The part of a store's metadata that says what its rows depend on; weights and texts by their hashes."""
    return {
        "descriptions_sha256": file_sha256(descriptions),
        "text": text,
        "encoder_sha256": encoder.sha256,
        "precision": encoder.precision,
        "dtype": dtype,
        "overflow": overflow,
    }


def is_encoded(output: str | Path, wanted: dict[str, Any]) -> bool:
    """Whether `output` is whole and `made_from` what is wanted; `UserError` if it is a file that is no store."""
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
    return wanted.items() <= metadata.items()


def encode_descriptions(
    descriptions: str | Path,
    text: str,
    encoder: TextEncoder,
    output: str | Path,
    *,
    dtype: str = "float16",
    overflow: str = "truncate",
    batch_size: int = 32,
    ranks: Ranks = _ALONE,
) -> Optional[Encoding]:
    """Encode the texts under key `text` of a description set into an embedding store; an older one is replaced.

    Each distinct text is encoded once: images with equal texts share a `text_id` (counted from 0 in the file's order)
    and a bit-equal row. Of several ranks, rank 0 writes the store and returns; the others return None when their share
    is done. The metadata's `truncated` is the share of images whose text was cut.

    Args:
        dtype: of the rows in the store, float16 or float32.
        overflow: see `Parts`.

    Raises:
        UserError: the description set is at fault (`read_descriptions`), a text cannot be encoded (`Parts.encode`),
            or the store cannot be written (`write_store`).
    """
    output = Path(output)
    check_destination(output, encoder.dim, dtype)
    wanted = made_from(descriptions, text, encoder, dtype, overflow)
    key = hashlib.sha256(json.dumps([wanted, batch_size], sort_keys=True).encode()).hexdigest()[:16]
    folder = output.with_name(f".{output.name}.encoding-{key}")
    path = folder / "texts.sqlite"
    if ranks.rank == 0 and not path.exists():
        try:
            TextTable.write(path, descriptions, text)
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    while not path.exists():
        if is_encoded(output, wanted):
            return None  # the others needed no help
        time.sleep(_POLL_SECONDS)

    with TextTable(path, descriptions) as table:
        parts = Parts(folder, table, encoder, dtype, overflow, batch_size)
        encoded, seconds = parts.encode(ranks)
        if ranks.rank:
            return None
        if ranks.world > 1:
            parts.wait()
        metadata = {
            **wanted,
            "encoder": encoder.name,
            "context_length": encoder.context_length,
            **parts.lengths(),
            "versions": {package: importlib.metadata.version(package) for package in ("torch", "transformers")},
        }
        write_blocks(output, table.images, parts.rows(), metadata, dtype)
    for leftover in output.parent.glob(f".{glob.escape(output.name)}.encoding-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Encoding(read_metadata(output), table.texts, encoded, seconds)
