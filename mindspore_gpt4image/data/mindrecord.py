"""Reading an embedding store's MindRecord without MindSpore.

A MindRecord is a header, then pages of one size; an SQLite index beside it says at which bytes of which page a row's
arrays lie, and holds its strings and numbers. Format version 3.0, compared with MindSpore's own reader by the tests.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

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
        header: the JSON at the beginning of the file.
        dim: k; `dtype` float16 travels as int32 [k / 2], float32 as it is.
        block: m, but for the last block.

    Raises:
        ValueError: the file or its index is damaged.
    """
    index = path.with_name(f"{path.name}.db").resolve().as_uri()
    try:
        with closing(sqlite3.connect(f"{index}?mode=ro&immutable=1", uri=True)) as database, path.open("rb") as file:
            cursor = database.execute(_ROWS)
            while rows := cursor.fetchmany(block):
                ids, text_ids, pages, starts, ends = zip(*rows)
                pages = header["header_size"] + np.array(pages) * header["page_size"]
                starts, ends = pages + np.array(starts), pages + np.array(ends)
                yield list(ids), list(text_ids), _embeddings(file, starts, ends - starts, dim, dtype)
    except (sqlite3.Error, TypeError, OSError) as error:
        raise ValueError(f"{index}: {error}") from error


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
    if ends[-1] != len(data):
        raise ValueError("a row's numbers do not fill it")
    data = data.tobytes()
    numbers = [int.from_bytes(data[end - size : end], "little", signed=True) for size, end in zip(sizes, ends)]
    return np.array(numbers, np.int32).view(np.uint8)
