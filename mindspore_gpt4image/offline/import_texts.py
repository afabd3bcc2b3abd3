"""Descriptions that exist already, in the forms in which people have them, joined to a data set's images."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mindspore_gpt4image.errors import UserError, first_line
from mindspore_gpt4image.sources.descriptions import is_text

_NAMES = ("id", "image", "image_id", "file_name", "filename", "file", "path", "filepath")
_TEXTS = ("caption", "text", "description")


@dataclass(frozen=True)
class Imported:
    """Texts found for a data set's images.

    Attributes:
        texts: texts by key, by image id, in the images' order.
        missing: ids of images that have none.
        unknown: names in the file that belong to no image.
    """

    texts: dict[str, dict[str, str]]
    missing: list[str]
    unknown: list[str]


def import_texts(path: str | Path, ids: Sequence[str], keys: Sequence[str]) -> Imported:
    """Read the texts of images from a file, told by its ending, or a folder.

    - `.pth`, `.pt`: a list of texts, as released for ImageNet: one an image, in the order in which torchvision lists a
      folder. Nothing in the file is executed.
    - `.csv`, `.tsv`: a header with a column that names the image (`id`, `image`, `file_name`, …) and the columns
      `keys`; for a single key also `caption`, `text` or `description`.
    - `.json`: COCO captions; of several captions of an image the first.
    - a folder: a `.txt` for each image, at the image's place and with its name; the data set's own root, as a rule.

    A name may be an image's id or just the end of its path, if it is no other's.

    Raises:
        UserError: the file is not in its form, a list has another length than `ids`, a name is ambiguous or comes
            twice, or no name is known.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file; give a .pth, .csv, .tsv or .json file or a folder of .txt")
    ending = path.suffix.lower()
    if path.is_dir():
        named = _beside(path, ids, _only(keys, path))
    elif ending in (".pth", ".pt"):
        named = _list(path, ids, _only(keys, path))
    elif ending in (".csv", ".tsv"):
        named = _table(path, keys, "\t" if ending == ".tsv" else ",")
    elif ending == ".json":
        named = _coco(path, _only(keys, path))
    else:
        raise UserError(f"{path}: cannot be imported; give a .pth, .csv, .tsv or .json file or a folder of .txt")
    return _join(path, named, ids)


def _only(keys: Sequence[str], path: Path) -> str:
    if len(keys) > 1:
        raise UserError(f"{path}: holds one text an image; say which it is: --text short or --text long")
    return keys[0]


def _list(path: Path, ids: Sequence[str], key: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    import torch

    try:
        texts = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds more than plain values, which is not loaded since it could run anything; expected a list "
            "of texts"
        ) from error
    except Exception as error:  # a damaged file may raise anything
        raise UserError(f"{path}: cannot be read as a file of torch.save ({first_line(error)})") from error
    if not isinstance(texts, (list, tuple)):
        raise UserError(f"{path}: holds a {type(texts).__name__}; expected a list of texts, one an image")
    if len(texts) != len(ids):
        raise UserError(
            f"{path}: holds {len(texts)} texts for {len(ids)} images; they are joined by position, so give --split the "
            "very images it was made for"
        )
    for position, (id, text) in enumerate(zip(sorted(ids, key=_torchvision_order), texts)):
        if not isinstance(text, str):
            raise UserError(f"{path}: entry {position} (for {id}) is a {type(text).__name__}; expected a text")
        yield f"entry {position}", id, {key: text}


def _torchvision_order(id: str) -> tuple[str, str, str, str]:
    """As its ImageFolder lists: by class, then by folder, then by file, where a plain sort compares the slashes too."""
    split, *rest = id.split("/")
    folder, _, file = id.rpartition("/")
    return split, rest[0], folder, file


def _table(path: Path, keys: Sequence[str], delimiter: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            header = [name or "" for name in rows.fieldnames or ()]
            name = _column(path, header, _NAMES, "the image")
            columns = {
                key: _column(path, header, (key, *(_TEXTS if len(keys) == 1 else ())), f"the {key} text")
                for key in keys
            }
            for row in rows:
                texts = {key: row[column] or "" for key, column in columns.items()}
                yield f"line {rows.line_num}", row[name] or "", texts
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a table in UTF-8 ({first_line(error)})") from error


def _column(path: Path, header: list[str], names: Sequence[str], what: str) -> str:
    found = [name for wanted in names for name in header if name.strip().lower() == wanted]
    if not found:
        raise UserError(f"{path}: no column for {what}; expected one of {', '.join(names)}, got {', '.join(header)}")
    return found[0]


def _coco(path: Path, key: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    try:
        content: Any = json.loads(path.read_bytes().decode("utf-8-sig"))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        captions: dict[Any, str] = {}
        for annotation in content["annotations"]:
            captions.setdefault(annotation["image_id"], annotation["caption"])
        named = [(f"image {number}", names[number], {key: text}) for number, text in captions.items()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({first_line(error)})") from error
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(
            f"{path}: is not in the form of COCO captions ({error!r} is missing); expected images with id and "
            "file_name, annotations with image_id and caption"
        ) from error
    yield from named


def _beside(folder: Path, ids: Sequence[str], key: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    for id in ids:
        path = (folder / id).with_suffix(".txt")
        if path.is_file():
            try:
                yield str(path), id, {key: path.read_text(encoding="utf-8-sig")}
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"{path}: cannot be read as UTF-8 ({first_line(error)})") from error


def _join(path: Path, named: Iterator[tuple[str, str, dict[str, str]]], ids: Sequence[str]) -> Imported:
    id_of = _Names(ids)
    found: dict[str, dict[str, str]] = {}
    place_of: dict[str, str] = {}
    unknown = []
    for place, name, texts in named:
        if not isinstance(name, str) or not all(isinstance(text, str) for text in texts.values()):
            raise UserError(f"{path}, {place}: name and text must be strings")
        try:
            id = id_of(name.strip().removeprefix("./"))
        except LookupError as error:
            raise UserError(f"{path}, {place}: several images end in {name!r}; name them by their whole ids") from error
        if id is None:
            unknown.append(name)
            continue
        if id in place_of:
            raise UserError(f"{path}, {place}: image {id} has a text at {place_of[id]} already; keep one of the two")
        place_of[id] = place
        found[id] = {key: text.strip() for key, text in texts.items()}
    if not place_of:
        first = f"; the first is {unknown[0]!r}, the first image {ids[0]!r}" if unknown else ""
        raise UserError(f"{path}: names none of the {len(ids)} images{first}")
    whole = {id: found[id] for id in ids if id in found and all(map(is_text, found[id].values()))}
    return Imported(whole, [id for id in ids if id not in whole], unknown)


class _Names:
    """Finds an image's id by itself or by any end of its path: None where no image has it, LookupError where several
    have."""

    def __init__(self, ids: Sequence[str]):
        self._ids = ids
        self._whole = set(ids)

    def __call__(self, name: str) -> str | None:
        if name in self._whole:
            return name
        id = self._by_end.get(name)
        if id == "":
            raise LookupError
        return id

    @cached_property
    def _by_end(self) -> dict[str, str]:
        id_of: dict[str, str] = {}
        for id in self._ids:
            _, _, end = id.partition("/")
            while end:
                id_of[end] = "" if end in id_of else id
                _, _, end = end.partition("/")
        return id_of
