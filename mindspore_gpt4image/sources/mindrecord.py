"""A MindRecord's header, and the index beside it, read without MindSpore and without trust.

A file begins with the length of its header in 8 bytes (little-endian) and the header, a JSON object; pages of one size
follow. The index, `<file>.db`, is an SQLite data base whose table INDEXES holds the plain fields of every row, and at
which bytes of which page its binary fields lie. Format version 3.0.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 128 << 20  # MindRecord's own limit
_MAX_SIZE = 1 << 40  # of the numbers in a header, so that sums of them stay within 64 bits


def index_file(path: Path) -> Path:
    """MindRecord's own index, written last: without it a file does not count as written."""
    return path.with_name(f"{path.name}.db")


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The header at the beginning of a file.

    Its `header_size` and `page_size` are sizes, `page` is a list of pages with their `page_id` and `page_size`,
    `shard_addresses` a list of names, and `schema` a list of objects.

    Raises:
        ValueError: there is none, or a damaged one.
    """
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    try:
        header = json.loads(file.read(min(length, _MAX_HEADER_BYTES)))
        header["page"] = header["page"] or []
        sizes = [header["header_size"], header["page_size"]]
        sizes += [page[key] for page in header["page"] for key in ("page_id", "page_size")]
        names, schemas = header["shard_addresses"], header["schema"]
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("its header is damaged") from error
    if not (
        all(type(size) is int and 0 <= size <= _MAX_SIZE for size in sizes)
        and _is_list_of(str, names)
        and _is_list_of(dict, schemas)
    ):
        raise ValueError("its header is damaged")
    return header


def _is_list_of(kind: type, values: Any) -> bool:
    return isinstance(values, list) and len(values) > 0 and all(isinstance(value, kind) for value in values)


@contextmanager
def open_index(path: Path) -> Iterator[sqlite3.Connection]:
    """The data base beside the file `path`, to be read.

    Raises:
        sqlite3.Error: it is missing, damaged or something else.
    """
    # Read-only media have no place for SQLite's lock.
    address = f"{index_file(path).resolve().as_uri()}?mode=ro&immutable=1"
    with closing(sqlite3.connect(address, uri=True)) as connection:
        # A view of that name could go on for ever.
        kinds = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'INDEXES'").fetchall()
        if not (kinds and str(kinds[0][0]).startswith("CREATE TABLE")):
            raise sqlite3.DatabaseError("it has no table INDEXES")
        yield connection


def columns(rows: Sequence[tuple]) -> tuple[list[str], list[tuple[int, ...]]]:
    """The ids of an index's rows, which come first, and each column of whole numbers behind them.

    Raises:
        ValueError: there are no rows, or fields of another type.
    """
    ids, *numbers = zip(*rows)
    if {type(id) for id in ids} != {str} or {type(n) for column in numbers for n in column} != {int}:
        raise ValueError("fields of a wrong type")
    return list(ids), numbers
