"""Description sets: JSON Lines with one object an image, `{"id": …, "short": …, "long": …}`."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import replacing

TEXTS = ("short", "long")

_ID = re.compile(rb'"id"\s*:\s*("[^"\\]*")')


def read_descriptions(path: str | Path, text: str) -> dict[str, str]:
    """Read the texts under key `text` (`short` or `long`): stripped text by image id, in the file's order.

    Raises:
        UserError: the file is missing or empty, a line is not an object with an id and non-blank texts, an id comes
            twice, or lines lack the key.
    """
    texts: dict[str, str] = {}
    line_of: dict[str, int] = {}
    for number, id, found in stream_texts(path, text):
        if id in line_of:
            raise repeated_id(path, number, id, line_of[id])
        line_of[id] = number
        if found is not None:
            texts[id] = found
    return texts


def stream_texts(path: str | Path, text: str) -> Iterator[tuple[int, str, str | None]]:
    """Line number, id and stripped text of each line, in the file's order; nothing is kept in memory.

    Where a line lacks the key the text is None, and there is an error once all lines are through.

    Raises:
        UserError: as `read_descriptions`, but that ids which come twice are not noticed.
    """
    lines, first, keys = 0, None, Counter()
    for number, id, texts in stream_rows(path):
        lines += 1
        keys.update(texts.keys())
        if text not in texts and first is None:
            first = f"line {number}, id {id!r}"
        yield number, id, texts.get(text)
    if first is not None:
        there = ", ".join(f"{key!r} on {count}" for key, count in sorted(keys.items())) or "no other"
        raise UserError(
            f"{path}: {lines - keys[text]} of {lines} lines lack {text!r} (first: {first}); "
            f"texts there are: {there}; describe those images or choose the other text"
        )


def stream_rows(path: str | Path) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Line number, id and stripped texts by key of each line; `UserError` as for `stream_texts`."""
    path, number = Path(path), 0
    for number, line in _lines(path):
        yield number, *parse_line(line, f"{path}, line {number}")
    if not number:
        raise UserError(f"{path}: holds no descriptions; expected one JSON object a line")


def repeated_id(path: str | Path, number: int, id: str, before: int) -> UserError:
    """What to say of an id on line `number` that was on line `before` already."""
    return UserError(f"{path}, line {number}: id {id!r} was on line {before} already; keep one of the two")


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


def parse_line(line: bytes, where: str) -> tuple[str, dict[str, str]]:
    """The id and the stripped texts of one line.

    Raises:
        UserError: it is no description; the message begins with `where`.
    """
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        cut_short = _ID.search(line)
        of = f" (of id {cut_short[1].decode(errors='replace')})" if cut_short else ""
        raise UserError(f"{where}{of}: not JSON in UTF-8 ({error}); expected one object a line") from error
    if not isinstance(row, dict):
        raise UserError(f'{where}: not a JSON object; expected {{"id": "…", "short": "…"}}')
    id = row.pop("id", None)
    if not isinstance(id, str) or not id or not _is_unicode(id) or "\0" in id:
        raise UserError(f"{where}: has no \"id\" that is a string; give the image's path under the data set's root")
    texts = {key: row[key] for key in TEXTS if key in row}
    for key, text in texts.items():
        if not is_text(text):
            raise UserError(f"{where}: id {id!r}: {key!r} is not a text; leave the key out where there is none")
    return id, {key: text.strip() for key, text in texts.items()}


def is_text(value: object) -> bool:
    """Whether a value can be a description: a string of characters of which some can be seen."""
    return isinstance(value, str) and _is_unicode(value) and any(map(_is_visible, value))


def _is_unicode(text: str) -> bool:
    # JSON can escape half of a surrogate pair, which is no character and cannot be stored.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_visible(character: str) -> bool:
    return character.isprintable() and not character.isspace()
