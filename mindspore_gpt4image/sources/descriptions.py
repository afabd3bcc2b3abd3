"""Description sets: JSON Lines with one object an image, `{"id": …, "short": …, "long": …}`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import replacing


def read_descriptions(path: str | Path, text: str) -> dict[str, str]:
    """Read the texts under key `text` (`short` or `long`): stripped text by image id, in the file's order.

    Raises:
        UserError: the file is missing or empty, a line is not an object with an id and non-blank texts, an id comes
            twice, or lines lack the key.
    """
    path = Path(path)
    texts: dict[str, str] = {}
    line_of: dict[str, int] = {}
    keys: Counter[str] = Counter()
    for number, line in _lines(path):
        id, row = _parse(line, f"{path}, line {number}")
        if id in line_of:
            raise UserError(f"{path}, line {number}: id {id!r} was on line {line_of[id]} already; keep one of the two")
        line_of[id] = number
        keys.update(row.keys())
        if text in row:
            texts[id] = row[text]
    if not line_of:
        raise UserError(f"{path}: holds no descriptions; expected one JSON object a line")
    lacking = len(line_of) - len(texts)
    if lacking:
        first = next(id for id in line_of if id not in texts)
        there = ", ".join(f"{key!r} on {count}" for key, count in sorted(keys.items())) or "no other"
        raise UserError(
            f"{path}: {lacking} of {len(line_of)} lines lack {text!r} (first: line {line_of[first]}, id {first!r}); "
            f"texts there are: {there}; describe those images or choose the other text"
        )
    return texts


def write_descriptions(path: str | Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write one object a line; `path` holds either all rows or what it held before."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(dict(row), ensure_ascii=False) + "\n")


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with _open(Path(path)) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _open(path: Path):
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a description set (JSON Lines)") from error


def _lines(path: Path):
    """Numbered lines that are not blank, as bytes: text mode would also accept what is not UTF-8 JSON."""
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line


def _parse(line: bytes, where: str) -> tuple[str, dict[str, str]]:
    """The id and the stripped texts of one line."""
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{where}: not JSON in UTF-8 ({error}); expected one object a line") from error
    if not isinstance(row, dict):
        raise UserError(f'{where}: not a JSON object; expected {{"id": "…", "short": "…"}}')
    id = row.pop("id", None)
    if not isinstance(id, str) or not id:
        raise UserError(f"{where}: has no \"id\" that is a string; give the image's path under the data set's root")
    for key in ("short", "long"):
        if key in row and (not isinstance(row[key], str) or not row[key].strip()):
            raise UserError(f"{where}: id {id!r}: {key!r} is not a text; leave the key out where there is none")
    return id, {key: row[key].strip() for key in ("short", "long") if key in row}
