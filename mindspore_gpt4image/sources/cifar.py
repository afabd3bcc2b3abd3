"""CIFAR-10 and CIFAR-100 as their authors publish them: binary or Python version, packed or unpacked.

Nothing is unpacked to disk. The pickles of the Python version go through an unpickler that builds arrays of numbers and
Python's own numbers, texts and containers, and calls nothing else.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.sources.classes import label_map
from mindspore_gpt4image.sources.image_set import ImageSet

SPLITS = ("train", "test")
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class _Version:
    """One of the four published versions.

    Attributes:
        data_set: `cifar10` or `cifar100`.
        folder: the folder that its archive holds.
        archive: the archive's name.
        names: the file with the names of the classes.
        train, test: the files with the images of each split, in their order.
    """

    data_set: str
    folder: str
    archive: str
    names: str
    train: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def is_binary(self) -> bool:
        return self.names.endswith(".txt")

    def files(self, split: str) -> tuple[str, ...]:
        return {"train": self.train, "test": self.test}[split]


_VERSIONS = (
    _Version(
        "cifar10",
        "cifar-10-batches-bin",
        "cifar-10-binary.tar.gz",
        "batches.meta.txt",
        tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
        ("test_batch.bin",),
    ),
    _Version(
        "cifar10",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        "batches.meta",
        tuple(f"data_batch_{n}" for n in range(1, 6)),
        ("test_batch",),
    ),
    _Version(
        "cifar100",
        "cifar-100-binary",
        "cifar-100-binary.tar.gz",
        "fine_label_names.txt",
        ("train.bin",),
        ("test.bin",),
    ),
    _Version("cifar100", "cifar-100-python", "cifar-100-python.tar.gz", "meta", ("train",), ("test",)),
)


class CifarImages:
    """Reads images from uint8 [n, 32, 32, 3]."""

    def __init__(self, place: Path, ids: Sequence[str], pixels: np.ndarray):
        self._place, self._ids, self._pixels = place, ids, pixels

    def encoded(self, position: int) -> bytes:
        return b"P6 %d %d 255\n" % (_SIDE, _SIDE) + self._pixels[position].tobytes()

    def rgb(self, position: int) -> Image.Image:
        return Image.fromarray(self._pixels[position])

    def where(self, position: int) -> str:
        return f"{self._place}:{self._ids[position]}"


def find_cifar(root: Path) -> dict[str, Path]:
    """What `root` is or holds: by data set, its archive or the folder with its files, which goes first.

    The key of an archive that `root` itself is is "": which data set it holds is not known before it is read.
    """
    if root.is_file():
        # By its name too, so that an archive that is damaged from the beginning is told as one.
        named = root.name in (version.archive for version in _VERSIONS)
        return {"": root} if named or tarfile.is_tarfile(root) else {}
    found: dict[str, Path] = {}
    for version in _VERSIONS:
        for folder in (root, root / version.folder):
            # An image folder may hold a file called "meta" too, but its "train" is a folder.
            if (folder / version.names).is_file() and (folder / version.train[0]).is_file():
                found.setdefault(version.data_set, folder)
    for version in _VERSIONS:
        if (root / version.archive).is_file():
            found.setdefault(version.data_set, root / version.archive)
    return found


def list_cifar(
    root: str | Path, split: str, classes: Sequence[str] | None = None, data_set: str | None = None
) -> ImageSet:
    """Read a split; ids are `train/00000` and so on, in the published order.

    Args:
        root: an archive, the folder it unpacks to, or a folder that holds either.
        classes: names in the order of the labels; None: the published order.
        data_set: `cifar10` or `cifar100`; None: the one there is.

    Raises:
        UserError: no such data set or split, files that are missing, damaged or hostile, or classes beyond `classes`.
    """
    root = Path(root)
    if split not in SPLITS:
        raise UserError(f"{root}: CIFAR has no split {split!r}; splits there: {', '.join(SPLITS)}")
    place = _choose(root, data_set)
    candidates = [version for version in _VERSIONS if data_set in (None, version.data_set)]
    files = _read(place, {name for version in candidates for name in (version.names, *version.files(split))})
    version = next((version for version in candidates if version.names in files), None)
    if version is None:
        names = ", ".join(version.names for version in candidates)
        raise UserError(f"{place}: holds no {data_set or 'CIFAR'}, none of {names} is in it")
    if missing := [name for name in version.files(split) if name not in files]:
        raise UserError(f"{place}: lacks {', '.join(missing)}; download it again")
    with _damage_told(place / version.names):
        names = _read_names(version, files[version.names])
    parts = []
    for name in version.files(split):
        with _damage_told(place / name):
            parts.append(_read_images(version, files[name], len(names)))
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    if classes is not None:
        labels = label_map(names, classes, place)[labels]
    ids = [f"{split}/{number:05}" for number in range(len(labels))]
    return ImageSet(root, split, ids, labels.astype(np.int32), tuple(classes or names), CifarImages(place, ids, pixels))


def _choose(root: Path, data_set: str | None) -> Path:
    found = find_cifar(root)
    places = [place for name, place in found.items() if data_set in (None, name) or not name]
    if not places:
        archives = ", ".join(version.archive for version in _VERSIONS if data_set in (None, version.data_set))
        raise UserError(f"{root}: holds no {data_set or 'CIFAR'}; give one of {archives}, or the folder it unpacks to")
    if len(places) > 1:
        raise UserError(f"{root}: holds {' and '.join(found)}; give the archive or folder of one of them")
    return places[0]


def _read(place: Path, names: set[str]) -> dict[str, bytes]:
    """Those of the files that the folder or archive holds. Only regular files count, wherever an archive has them."""
    with _damage_told(place):
        if place.is_dir():
            return {name: (place / name).read_bytes() for name in names if (place / name).is_file()}
        with tarfile.open(place) as archive:
            members = ((PurePosixPath(member.name).name, member) for member in archive if member.isfile())
            files = {name: archive.extractfile(member).read() for name, member in members if name in names}
            # The checksum of what was compressed comes behind the last member.
            while archive.fileobj.read(1 << 20):
                pass
            return files


def _read_names(version: _Version, content: bytes) -> list[str]:
    """Names of the classes in the order of the labels."""
    if version.is_binary:
        return content.decode().split()
    return [_text(name) for name in _field(_unpickle(content), "fine_label_names", "label_names")]


def _read_images(version: _Version, content: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """(pixels uint8 [n, 32, 32, 3], labels int [n]) in one file's content."""
    if version.is_binary:
        label_bytes = 2 if version.data_set == "cifar100" else 1  # coarse, fine
        if len(content) % (label_bytes + _PIXELS):
            raise ValueError(f"{len(content)} bytes are no whole number of images")
        records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + _PIXELS)
        pixels, labels = records[:, label_bytes:], records[:, label_bytes - 1]
    else:
        batch = _unpickle(content)
        pixels, labels = _field(batch, "data"), np.array(_field(batch, "fine_labels", "labels"), np.int64)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
            raise ValueError("its data are no array of bytes")
        if pixels.shape != (*labels.shape, _PIXELS):
            raise ValueError(f"its data have the shape {list(pixels.shape)}, its labels {list(labels.shape)}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}, of {classes} classes")
    # Published as planes of red, green and blue.
    return np.ascontiguousarray(pixels.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)), labels


def _field(content: Any, *keys: str) -> Any:
    """The value under the first of the keys that there is; Python 2 wrote them as bytes."""
    for key in keys:
        for form in (key.encode(), key):
            if isinstance(content, dict) and form in content:
                value = content[form]
                return value.values if isinstance(value, _Array) else value
    raise ValueError(f"holds no {' or '.join(map(repr, keys))}")


def _text(value: Any) -> str:
    """What Python 2 or 3 wrote for a text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _unpickle(content: bytes) -> Any:
    # Reads every length first, and so refuses those that go beyond the end.
    for opcode, argument, _ in pickletools.genops(content):
        # The table of what was read is as long as its highest number.
        if "PUT" in opcode.name and argument > len(content):
            raise pickle.UnpicklingError(f"it wants a table of {argument} entries")
    return _Unpickler(io.BytesIO(content), encoding="bytes").load()


class _Type:
    """Stands in for `numpy.dtype`, and is a whole number's type."""

    def __init__(self, name: Any, *_: Any):
        if _text(name) not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"):
            raise pickle.UnpicklingError(f"it holds an array of {_text(name)!r}")
        self.dtype = np.dtype(_text(name))

    def __setstate__(self, state: tuple) -> None:
        _, byte_order, *_ = state
        if _text(byte_order) in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(_text(byte_order))


class _Array:
    """Stands in for an array: NumPy's own way to restore one trusts what it is told."""

    def __init__(self, *_: Any):
        self.values = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, is_fortran, data = state
        self.values = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if is_fortran else "C")


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Builds arrays besides what pickle has opcodes for: numbers, texts and containers."""

    _ADMITTED = {  # noqa: RUF012
        "multiarray._reconstruct": _Array,
        "numpy.ndarray": None,  # an argument of the one before
        "numpy.dtype": _Type,
        "_codecs.encode": _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 calls its core by another name.
        module = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        try:
            return self._ADMITTED[f"{module}.{name}"]
        except KeyError:
            raise pickle.UnpicklingError(f"it would call {module}.{name}, which no image needs") from None


@contextmanager
def _damage_told(place: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        cause = str(error).partition(":\n")[0]  # tarfile adds a line for every compression it tried
        raise UserError(f"{place}: cannot be read ({cause}); download it again") from error
    except Exception as error:  # pickle and NumPy raise anything on damaged bytes
        raise UserError(f"{place}: is damaged or no file of CIFAR ({error}); download it again") from error
