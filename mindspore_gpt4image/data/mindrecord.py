"""Reading an embedding store's MindRecord without MindSpore; compared with MindSpore's own reader by the tests."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Optional

import numpy as np

from mindspore_gpt4image.sources.mindrecord import columns, index_file, open_index

_LENGTH_BYTES = 8  # before each row's arrays: how many bytes follow
_COUNT_BYTES = 4  # before integers: how many follow

_ROWS = """
    SELECT id_0, text_id_0, PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END FROM INDEXES ORDER BY ROW_ID
"""


def read_rows(
    path: Path, header: dict[str, Any], dim: int, dtype: str, block: int
) -> Iterator[tuple[list[str], list[int], np.ndarray]]:
    """Blocks of ids, text ids and embeddings [m, k] of type `dtype`, in the file's order.

    Args:
        header: from `sources.mindrecord.read_header`.
        dim: k; `dtype` float16 travels as int32 [k / 2], float32 as it is.
        block: m, but for the last block.

    Raises:
        ValueError: the file or its index is damaged.
    """
    try:
        with open_index(path) as database, path.open("rb") as file:
            cursor = database.execute(_ROWS)
            while rows := cursor.fetchmany(block):
                ids, (text_ids, *places) = columns(rows)
                pages, starts, ends = np.array(places, np.int64)
                pages = header["header_size"] + pages * header["page_size"]
                embeddings = _embeddings(file, pages + starts, ends - starts, dim, dtype)
                yield ids, list(text_ids), embeddings
    except (sqlite3.Error, OSError) as error:
        raise ValueError(f"{index_file(path)}: {error}") from error


class Checksum:
    """CRC-32 of a store's metadata and of its rows, however they are cut into blocks.

    MindRecord has none. It is kept where SQLite leaves an application a number of 32 bits: in the index's header.
    """

    def __init__(self, metadata: Mapping[str, Any]):
        self._columns = [zlib.crc32(json.dumps(metadata, sort_keys=True).encode()), 0, 0, 0]

    def add(self, ids: Sequence[str], text_ids: Sequence[int], embeddings: np.ndarray) -> None:
        """Count in the next rows; `embeddings` [m, …] as they are stored."""
        texts = "".join(f"{id}\0" for id in ids).encode("utf-8", "surrogatepass")
        for number, part in enumerate((texts, np.array(text_ids, np.int64), np.ascontiguousarray(embeddings)), 1):
            self._columns[number] = zlib.crc32(part, self._columns[number])

    @property
    def value(self) -> int:
        """As SQLite keeps it: with a sign."""
        return int(np.uint32(zlib.crc32(str(self._columns).encode())).view(np.int32))


def write_checksum(path: Path, checksum: Checksum) -> None:
    """Put it into the index of the file `path`."""
    with closing(sqlite3.connect(index_file(path))) as database:
        database.execute(f"PRAGMA user_version = {checksum.value}")


def read_checksum(path: Path) -> Optional[int]:
    """What `write_checksum` put there; None where something else has written the file.

    Raises:
        ValueError: the index is damaged.
    """
    try:
        with open_index(path) as database:
            return database.execute("PRAGMA user_version").fetchone()[0] or None
    except sqlite3.Error as error:
        raise ValueError(f"{index_file(path)}: {error}") from error


def _embeddings(file: BinaryIO, starts: np.ndarray, lengths: np.ndarray, dim: int, dtype: str) -> np.ndarray:
    packed = dtype == "float16"
    count = dim // 2 if packed else dim
    overhead = _LENGTH_BYTES + (_COUNT_BYTES + -(-count // 4) if packed else 0)
    whole = overhead + 4 * count
    if lengths.max() > whole or lengths.min() < (overhead + count if packed else whole):
        raise ValueError("rows of a wrong length")
    rows = np.empty((len(starts), 4 * count), np.uint8)
    # Rows that follow each other are read at once.
    breaks = np.flatnonzero(starts[1:] != starts[:-1] + lengths[:-1]) + 1
    for run in np.split(np.arange(len(starts)), breaks):
        size = int(lengths[run].sum())
        file.seek(starts[run[0]])
        data = np.frombuffer(file.read(size), np.uint8)
        if len(data) < size:
            raise ValueError("the file ends within a row")
        if size == len(run) * whole:
            rows[run] = data.reshape(-1, whole)[:, overhead:]
            continue
        for row, part in zip(run, np.split(data, np.cumsum(lengths[run])[:-1])):
            rows[row] = part[overhead:] if len(part) == whole else _unpack(part[_LENGTH_BYTES + _COUNT_BYTES :], count)
    return rows.view(dtype)


def _unpack(data: np.ndarray, count: int) -> np.ndarray:
    """The bytes of int32 numbers, of which each is stored in 1, 2 or 4 bytes; two bits each say so before them all."""
    sizes = np.unpackbits(data[: -(-count // 4)]).reshape(-1, 2)[:count]
    sizes = 1 << (2 * sizes[:, 0] + sizes[:, 1]).astype(np.int64)
    ends = np.cumsum(sizes) + -(-count // 4)
    if sizes.max() > 4 or ends[-1] != len(data):
        raise ValueError("a row's numbers do not fill it")
    data = data.tobytes()
    numbers = [int.from_bytes(data[end - size : end], "little", signed=True) for size, end in zip(sizes, ends)]
    return np.array(numbers, np.int32).view(np.uint8)
