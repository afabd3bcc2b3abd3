"""Plain copies of odd image files, made once, so that training reads bytes and never asks what they are.

Whether a file is plain (`decoding.is_plain`) or odd is kept in a hidden folder of the data set, or in the user's cache
where that is read-only, by the file's id, size and time of change; there lie the copies too, as PNG.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import locked, replacing, user_cache
from mindspore_gpt4image.sources.decoding import encoded_rgb, is_plain

FOLDER = ".gpt4image"

_UNKNOWN, _PLAIN, _ODD = -1, 0, 1
# A thread takes so many files at a time: handing over each one costs more than looking at it.
_BLOCK = 64


@dataclass(frozen=True)
class Scan:
    """What is to be known of the image files of a split.

    Attributes:
        copies: the plain copy of each odd file, by id.
        broken: what is wrong with each file that cannot be read, by id.
    """

    copies: dict[str, Path]
    broken: dict[str, str]


def scan(root: Path, split: str, ids: Sequence[str]) -> Scan:
    """Find the odd and the broken ones among the files `root/id`, and see to it that the odd have copies.

    Only files that are new or changed are looked into, with progress shown if that takes long. Of several processes
    that start together one does it, and the others wait.

    Raises:
        UserError: a copy cannot be written.
    """
    known = _Known(root, split, ids)
    if known.is_complete:
        return Scan(known.copies(), {})
    place = next(filter(_is_writable, known.places), None)
    with locked(place / "lock") if place else nullcontext():
        # Somebody else may have looked meanwhile.
        known.load()
        broken = _look(known, place)
        if place:
            known.save(place)
    return Scan(known.copies(), broken)


class _Known:
    """What is known of each file by now: `kind` is int8 [n]."""

    def __init__(self, root: Path, split: str, ids: Sequence[str]):
        self.root, self.split, self.ids = root, split, ids
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        self.places = (root / FOLDER, user_cache() / "images" / name)
        self._stamps = np.array(_in_threads(self._stamp, range(len(ids))), np.int64).reshape(-1, 2)
        self.load()

    def _stamp(self, position: int) -> tuple[int, int]:
        """Size and time of the last change, in nanoseconds."""
        try:
            status = os.stat(f"{self.root}/{self.ids[position]}")  # noqa: PTH116 (a Path takes as long again)
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def load(self) -> None:
        self.kind = np.full(len(self.ids), _UNKNOWN, np.int8)
        for place in self.places:
            try:
                with self._file(place).open("rb") as file, np.load(file) as saved:
                    row_of = {id: row for row, id in enumerate(saved["ids"].tobytes().decode().split("\0"))}
                    stamps, kind = saved["stamps"], saved["kind"]
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                continue  # not there, or damaged: then everything is looked into anew
            rows = np.array([row_of.get(id, -1) for id in self.ids])
            same = (rows >= 0) & (stamps[rows] == self._stamps).all(axis=1)
            self.kind[same] = kind[rows[same]]
        for position in np.flatnonzero(self.kind == _ODD).tolist():
            if self.copy(position) is None:
                self.kind[position] = _UNKNOWN

    def save(self, place: Path) -> None:
        with replacing(self._file(place)) as temporary:
            ids = np.frombuffer("\0".join(self.ids).encode(), np.uint8)
            np.savez(temporary, ids=ids, stamps=self._stamps, kind=self.kind)

    def _file(self, place: Path) -> Path:
        return place / f"{quote(self.split, safe='')}.npz"

    @property
    def is_complete(self) -> bool:
        return bool((self.kind != _UNKNOWN).all())

    def copy(self, position: int) -> Path | None:
        """Where the copy of a file is, if there is one."""
        return next((path for path in (self.copy_in(place, position) for place in self.places) if path.is_file()), None)

    def copy_in(self, place: Path, position: int) -> Path:
        """Where its copy would be in `place`."""
        size, changed = self._stamps[position]
        name = hashlib.sha256(f"{self.ids[position]}\0{size}\0{changed}".encode()).hexdigest()[:32]
        return place / name[:2] / f"{name[2:]}.png"

    def copies(self) -> dict[str, Path]:
        return {self.ids[position]: self.copy(position) for position in np.flatnonzero(self.kind == _ODD).tolist()}


def _look(known: _Known, place: Path | None) -> dict[str, str]:
    """Look into the files of unknown kind and copy the odd ones to `place`; returns the faults of the broken, by id."""
    unknown = np.flatnonzero(known.kind == _UNKNOWN).tolist()
    broken = {}

    def look(position: int) -> None:
        id = known.ids[position]
        path = known.root / id
        if known.copy(position):  # of a scan that did not end
            known.kind[position] = _ODD
            return
        try:
            plain = is_plain(path)
            data = None if plain else encoded_rgb(path)
        except UserError as error:
            broken[id] = str(error)
            return
        if not plain:
            if place is None:
                listed = " nor ".join(map(str, known.places))
                raise UserError(f"{path}: its plain copy can be written neither to {listed}; set XDG_CACHE_HOME")
            with replacing(known.copy_in(place, position)) as temporary:
                temporary.write_bytes(data)
        known.kind[position] = _PLAIN if plain else _ODD

    with tqdm(total=len(unknown), desc=f"looking at {known.split}", unit="img", delay=2, disable=None) as bar:
        _in_threads(look, unknown, bar.update)
    return {id: broken[id] for id in sorted(broken)}


def _in_threads(
    function: Callable[[int], Any], positions: Sequence[int], done: Callable[[int], Any] = lambda count: None
) -> list[Any]:
    """`function` of each position, in order; `done` is told how many more are done."""

    def run(start: int) -> list[Any]:
        results = [function(position) for position in positions[start : start + _BLOCK]]
        done(len(results))
        return results

    with ThreadPoolExecutor() as pool:
        blocks = pool.map(run, range(0, len(positions), _BLOCK))
        return [result for block in blocks for result in block]


def _is_writable(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return True
    except OSError:
        return False
