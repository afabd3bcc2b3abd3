"""The distinct texts of a description set, in a file: however many there are, memory does not grow."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import replacing
from mindspore_gpt4image.sources.descriptions import repeated_id, stream_texts

_TABLES = """
    PRAGMA journal_mode = OFF;
    PRAGMA synchronous = OFF;
    PRAGMA cache_size = -65536;
    CREATE TABLE texts (number INTEGER PRIMARY KEY, digest BLOB UNIQUE, text TEXT, images INTEGER);
    CREATE TABLE images (position INTEGER PRIMARY KEY, id TEXT UNIQUE, line INTEGER, text INTEGER);
"""


class TextTable:
    """Texts numbered from 0 in the order in which they first come, and the text of each image.

    Attributes:
        descriptions: the file they are from.
        images, texts: how many there are.

    Raises:
        UserError: the table is damaged.
    """

    def __init__(self, path: Path, descriptions: str | Path):
        self.descriptions = descriptions
        # Nobody changes it any more (immutable); else SQLite would lock it, which shared disks do not always allow.
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        try:
            self.images, self.texts = (self._one(f"SELECT COUNT(*) FROM {table}") for table in ("images", "texts"))
        except sqlite3.Error as error:
            raise UserError(f"{path}: is damaged ({error}); delete the folder {path.parent}") from error

    def __enter__(self) -> TextTable:
        return self

    def __exit__(self, *error) -> None:
        self._database.close()

    @classmethod
    def write(cls, path: Path, descriptions: str | Path, text: str) -> None:
        """Write the table of the texts under key `text`; it appears complete or not at all.

        Raises:
            UserError: the description set is at fault, as for `read_descriptions`.
        """
        with replacing(path) as temporary:
            database = sqlite3.connect(temporary)
            try:
                database.executescript(_TABLES)
                with database:
                    _fill(database, descriptions, text)
            except sqlite3.OperationalError as error:
                raise UserError(f"{path}: cannot be written ({error}); make room") from error
            finally:
                database.close()

    def texts_in(self, numbers: range) -> list[str]:
        """The texts with these numbers."""
        return [text for (text,) in self._between("text", numbers)]

    def images_of_texts(self, numbers: range) -> np.ndarray:
        """How many images have the texts with these numbers, int64."""
        return np.array([images for (images,) in self._between("images", numbers)], np.int64)

    def first_id(self, number: int) -> str:
        """The first image that has this text."""
        return self._one("SELECT id FROM images WHERE text = ? ORDER BY position LIMIT 1", number)

    def blocks(self, size: int) -> Iterator[tuple[list[str], np.ndarray]]:
        """Ids and text numbers, int64, of all images in the file's order."""
        cursor = self._database.execute("SELECT id, text FROM images ORDER BY position")
        while rows := cursor.fetchmany(size):
            ids, numbers = zip(*rows)
            yield list(ids), np.array(numbers, np.int64)

    def _between(self, column: str, numbers: range) -> sqlite3.Cursor:
        query = f"SELECT {column} FROM texts WHERE number >= ? AND number < ? ORDER BY number"
        return self._database.execute(query, (numbers.start, numbers.stop))

    def _one(self, query: str, *values):
        return self._database.execute(query, values).fetchone()[0]


def _fill(database: sqlite3.Connection, descriptions: str | Path, text: str) -> None:
    texts = images = 0
    for line, id, found in tqdm(stream_texts(descriptions, text), desc="reading", unit="line", disable=None):
        if found is None:
            continue  # `stream_texts` counts them and complains in the end
        digest = hashlib.blake2b(found.encode(), digest_size=16).digest()
        row = database.execute("SELECT number FROM texts WHERE digest = ?", (digest,)).fetchone()
        number = row[0] if row else texts
        if row:
            database.execute("UPDATE texts SET images = images + 1 WHERE number = ?", row)
        else:
            database.execute("INSERT INTO texts VALUES (?, ?, ?, 1)", (number, digest, found))
            texts += 1
        try:
            database.execute("INSERT INTO images VALUES (?, ?, ?, ?)", (images, id, line, number))
        except sqlite3.IntegrityError:
            (before,) = database.execute("SELECT line FROM images WHERE id = ?", (id,)).fetchone()
            raise repeated_id(descriptions, line, id, before) from None
        images += 1
