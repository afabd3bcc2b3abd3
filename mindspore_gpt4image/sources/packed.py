"""Data sets packed by `tools/prepare.py pack`: sharded MindRecord, read here without MindSpore.

    root/pack.json                     the classes, the splits, what was packed
    root/<split>/0000.mindrecord …     rows in the order of their positions, each file with its index (.db) beside it

A MindRecord's index is an SQLite data base that holds the plain fields of every row and where the others lie, so any
image is one read away. Training reads the same files through MindData.
"""

from __future__ import annotations

import io
import json
import sqlite3
import zlib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.classes import label_map
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.mindrecord import columns, open_index, read_header

PACK = "pack.json"
_LENGTH_BYTES = 8  # before a row's binary fields (little-endian) and, if it has several, before each (big-endian)
_PLAIN = ("JPEG", "PNG", "PPM")  # what `encoded` gives everywhere
_QUERY = (
    "SELECT id_0, label_0, crc32_0, PAGE_ID_BLOB, PAGE_OFFSET_BLOB, PAGE_OFFSET_BLOB_END FROM INDEXES ORDER BY ROW_ID"
)


class PackedImages:
    """Reads images out of shards.

    Attributes:
        files: the shards, in order.
    """

    def __init__(self, files: Sequence[Path], ids: Sequence[str], places: np.ndarray):
        """
        Args:
            ids: of the images, for messages.
            places: int64 [n, 4], of each image its shard, offset and length there, and checksum.
        """
        self.files = list(files)
        self._ids, self._places = ids, places

    def encoded(self, position: int) -> bytes:
        shard, offset, length, checksum = self._places[position].tolist()
        try:
            with self.files[shard].open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        except OSError as error:
            raise UserError(f"{self.where(position)}: cannot be read ({error.strerror})") from error
        if zlib.crc32(data) != checksum:
            raise UserError(f"{self.where(position)}: is damaged, its checksum is wrong; delete the shard, pack again")
        return data

    def rgb(self, position: int) -> Image.Image:
        data = self.encoded(position)
        try:
            with Image.open(io.BytesIO(data), formats=_PLAIN) as image:
                return image.convert("RGB")
        except Exception as error:  # a broken image can make a decoder of Pillow raise anything
            raise UserError(f"{self.where(position)}: cannot be decoded: {error}; pack it again") from error

    def where(self, position: int) -> str:
        return f"{self.files[self._places[position, 0]]}, id {self._ids[position]}"


def is_packed(root: Path) -> bool:
    """Whether a packed data set lies at `root`."""
    return (root / PACK).is_file()


def read_pack(root: str | Path) -> dict[str, Any]:
    """The contents of `pack.json`: `classes`, `splits`, `texts` (the store's metadata, or null) and more.

    Raises:
        UserError: it is missing, damaged or of a pack that was not finished.
    """
    path = Path(root) / PACK
    try:
        pack = json.loads(path.read_text(encoding="utf-8"))
        complete = pack["complete"] and {"classes", "splits", "texts"} <= pack.keys()
        is_good = not complete or _is_whole(pack)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the folder of a packed data set") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        is_good = False
    if not is_good:
        raise UserError(f"{path}: is damaged, or of something else; pack the data set again")
    if not complete:
        raise UserError(f"{root}: was not packed to its end; run the same tools/prepare.py pack again, it goes on")
    return pack


def _is_whole(pack: dict[str, Any]) -> bool:
    """Whether `pack.json` says what is read of it; LookupError, TypeError or AttributeError where it does not."""
    names = [*pack["classes"], *(name for split in pack["splits"].values() for name in split["shards"])]
    hashes = [split[key] for split in pack["splits"].values() for key in digests([], np.empty(0, np.int32))]
    counts = [split[key] for split in pack["splits"].values() for key in ("images", "without_text")]
    return (
        isinstance(pack["classes"], list)
        and all(isinstance(text, str) for text in names + hashes)
        and all(count is None or type(count) is int for count in counts)
        and (pack["texts"] is None or isinstance(pack["texts"], dict))
    )


def digests(ids: Sequence[str], labels: np.ndarray) -> dict[str, str]:
    """What `pack.json` knows a split's ids and labels (int32 [n]) by: no index has a checksum."""
    return {
        "ids_sha256": sha256("\n".join(ids).encode()).hexdigest(),
        "labels_sha256": sha256(labels.astype("<i4").tobytes()).hexdigest(),
    }


def list_packed(root: str | Path, split: str, classes: Sequence[str] | None = None) -> ImageSet:
    """List the images of a split of a packed data set; for `classes` see `list_images`.

    Raises:
        UserError: the pack is not whole, or has no such split or classes beyond `classes`.
    """
    root = Path(root)
    pack = read_pack(root)
    if split not in pack["splits"]:
        raise UserError(f"{root}: there is no split {split!r}; splits there: {', '.join(pack['splits'])}")
    files = [root / split / name for name in pack["splits"][split]["shards"]]
    ids: list[str] = []
    tables = [np.empty((0, 5), np.int64)]
    for shard, file in enumerate(files):
        names, table = read_index(file)
        ids += names
        tables.append(np.insert(table, 1, shard, axis=1))
    table = np.concatenate(tables)
    if len(ids) != pack["splits"][split]["images"]:
        raise UserError(
            f"{root / split}: holds {len(ids)} images, and {PACK} says {pack['splits'][split]['images']}; pack again"
        )
    own = tuple(pack["classes"])
    labels = table[:, 0].astype(np.int32)
    for key, digest in digests(ids, labels).items():
        if digest != pack["splits"][split][key]:
            raise UserError(f"{root / split}: its {key} is not the one in {PACK}: it is damaged, pack again")
    if not len(labels) or not 0 <= labels.min() <= labels.max() < len(own):
        raise UserError(f"{root / PACK}: its {len(own)} classes do not fit the labels of {split}; pack again")
    if classes is not None:
        present, labels = np.unique(labels, return_inverse=True)
        labels = label_map([own[label] for label in present], classes, root / split)[labels]
    return ImageSet(
        root=root,
        split=split,
        ids=ids,
        labels=labels,
        classes=own if classes is None else tuple(classes),
        reader=PackedImages(files, ids, table[:, 1:]),
    )


def read_index(file: Path) -> tuple[list[str], np.ndarray]:
    """Of each row of a shard its id, and int64 [n, 4]: label, offset of the image in the file, its length and checksum.

    Raises:
        UserError: the shard or its index is missing or damaged.
    """
    try:
        with file.open("rb") as shard:
            header = read_header(shard)
            with open_index(file) as connection:
                rows = connection.execute(_QUERY).fetchall()
            ids, numbers = columns(rows)
            labels, checksums, pages, offsets, ends = np.array(numbers, np.int64)
            starts, lengths = header["header_size"] + pages * header["page_size"] + offsets, ends - offsets
            size = file.stat().st_size
            # Each by itself first: a sum of large numbers begins again from below.
            if not all(part.min() >= 0 and part.max() <= size for part in (starts, lengths, starts + lengths)):
                raise ValueError("rows outside the file")
            before = _bytes_before_image(header["schema"][0]["blob_fields"], shard, int(starts[0]))
            if before > lengths.min():
                raise ValueError("rows without an image")
    except (OSError, ValueError, LookupError, TypeError, OverflowError, sqlite3.Error) as error:
        raise UserError(f"{file}: it or its .db is missing or damaged ({error}); delete both and pack again") from error
    return ids, np.stack([labels, starts + before, lengths - before, checksums], axis=1)


def _bytes_before_image(fields: Sequence[str], shard: BinaryIO, start: int) -> int:
    """How far into a row's binary fields, which begin at `start`, its image begins.

    It is the same in every row, as what precedes the image has one size.
    """
    if fields[-1] != "image":
        raise ValueError(f"its binary fields are {', '.join(fields)}, and the last must be image")
    before = _LENGTH_BYTES
    if len(fields) == 1:
        return before
    for _ in fields[:-1]:
        shard.seek(start + before)
        before += _LENGTH_BYTES + int.from_bytes(shard.read(_LENGTH_BYTES), "big")
    return before + _LENGTH_BYTES
