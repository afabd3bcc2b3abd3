"""The images of a folder `root/split/class/…`: their ids, labels and classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.classes import label_map
from mindspore_gpt4image.sources.decoding import encoded_rgb, open_rgb
from mindspore_gpt4image.sources.image_set import ImageSet
from mindspore_gpt4image.sources.plain_files import scan

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})

# What file managers leave behind besides names that begin with a dot.
_DROPPINGS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


class ImageFiles:
    """Reads the image files at `root/id`.

    Args:
        copies: plain copies of the odd ones, by id; None: nothing is known of the files.
    """

    def __init__(self, root: Path, ids: Sequence[str], copies: Mapping[str, Path] | None = None):
        self._root, self._ids, self._copies = root, ids, copies

    def _path(self, position: int) -> Path:
        return self._root / self._ids[position]

    def encoded(self, position: int) -> bytes:
        path = self._path(position)
        if self._copies is None:
            return encoded_rgb(path)
        file = self._copies.get(self._ids[position], path)
        try:
            return _read(file)
        except OSError as error:
            raise UserError(f"{path}: cannot be read any more ({error.strerror}: {file})") from error

    def rgb(self, position: int) -> Image.Image:
        return open_rgb(self._path(position))

    def where(self, position: int) -> str:
        return str(self._path(position))


def list_folder(root: str | Path, split: str, classes: Sequence[str] | None = None) -> ImageSet:
    """List the images in `root/split/<class>/`, however deep below the class, and `scan` them.

    Without `classes` the sorted names of the folders are the classes. With it (those of a checkpoint or of the train
    split) labels follow it by name, and a class without a folder is allowed. Hidden files are ignored, links followed.

    Raises:
        UserError: the split is missing, empty or flat, a class is unknown or empty, a name is not UTF-8, or the copies
            of odd images cannot be written.
    """
    root = Path(root)
    folder = root / split
    _check_split(root, split)
    folders, files = _entries(folder)
    stray = [name for name in files if _extension(name) in EXTENSIONS]
    if stray:
        raise UserError(
            f"{folder}: {len(stray)} images lie outside any class folder (first: {stray[0]}); "
            f"move each to {split}/<class>/, the layout must be <root>/<split>/<class>/<image>"
        )
    if not folders:
        raise UserError(f"{folder}: holds no class folders; the layout must be <root>/<split>/<class>/<image>")

    classes = tuple(folders if classes is None else classes)
    labels = label_map(folders, classes, folder)
    skipped = Counter(_extension(name) for name in files)
    labelled = []
    for name, label in zip(folders, labels.tolist()):
        found = 0
        for file in _files_below(folder / name, name):
            extension = _extension(file)
            if extension in EXTENSIONS:
                labelled.append((f"{split}/{file}", label))
                found += 1
            else:
                skipped[extension] += 1
        if not found:
            raise UserError(f"{folder / name}: the class has no image; add images or remove the folder")

    labelled.sort()
    ids = [id for id, _ in labelled]
    found = scan(root, split, ids)
    return ImageSet(
        root=root,
        split=split,
        ids=ids,
        labels=np.array([label for _, label in labelled], np.int32),
        classes=classes,
        reader=ImageFiles(root, ids, found.copies),
        skipped=dict(sorted(skipped.items())),
        broken=found.broken,
    )


def images_below(folder: Path) -> list[Path]:
    """The images in a folder, however deep, that a data set would have there: sorted, hidden ones ignored.

    Raises:
        UserError: a folder cannot be listed, or a name is not UTF-8.
    """
    return sorted(Path(file) for file in _files_below(folder, str(folder)) if _extension(file) in EXTENSIONS)


def _read(path: Path) -> bytes:
    """The bytes of a file, in a third less time than by `Path.read_bytes`: training reads every image this way.

    Each system call hands the interpreter to another thread and waits to get it back; here there are four.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        data = os.read(descriptor, size)
    finally:
        os.close(descriptor)
    # One call need not give all of it.
    return data if len(data) == size else path.read_bytes()


def _check_split(root: Path, split: str) -> None:
    if not root.is_dir():
        raise UserError(
            f"{root}: there is no such folder; give the data set's root, which holds <split>/<class>/<image>"
        )
    if not (root / split).is_dir():
        splits = ", ".join(_entries(root)[0]) or "none"
        raise UserError(f"{root}: there is no split {split!r}; splits there: {splits}")


def _files_below(folder: Path, prefix: str, parents: tuple[str, ...] = ()) -> Iterator[str]:
    """Paths of the files below `folder`, each behind `prefix`."""
    # A link to a folder that it lies in would be followed for ever.
    real = os.path.realpath(folder)
    if real in parents:
        return
    folders, files = _entries(folder)
    for name in files:
        yield f"{prefix}/{name}"
    for name in folders:
        yield from _files_below(folder / name, f"{prefix}/{name}", (*parents, real))


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the files that are not hidden."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _DROPPINGS:
                    continue
                _check_name(folder, entry.name)
                (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error
    return sorted(folders), sorted(files)


def _check_name(folder: Path, name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{folder}: the name {ascii(name)} is not UTF-8 and cannot be an id; rename it") from error


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (a Path for each of a million files is slow)
