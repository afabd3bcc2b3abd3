"""Embedding store: the text embedding of every training image, looked up by the image's id.

The file is a MindRecord of `id` (string), `text_id` (int64) and `embedding`, with its metadata as JSON in the schema's
text. MindRecord cannot look up by id, so the first `open` copies it into arrays that later opens only refer to.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mindspore_gpt4image import __version__
from mindspore_gpt4image.data.mindrecord import Checksum, read_checksum, read_rows, write_checksum
from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import user_cache
from mindspore_gpt4image.sources.mindrecord import index_file, read_header

_METADATA = frozenset({"encoder", "dim", "dtype", "text", "count", "truncated", "descriptions_sha256"})
_RULES = {
    "dim": lambda value: type(value) is int and 0 < value <= _MAX_DIM,
    "dtype": lambda value: value in ("float16", "float32"),
    "count": lambda value: type(value) is int,
    "encoder": lambda value: isinstance(value, str),
    "text": lambda value: isinstance(value, str),
    "descriptions_sha256": lambda value: isinstance(value, str),
}
_NORM_TOLERANCE = 1e-3
_BLOCK_ROWS = 4096
_MAX_DIM = 1 << 16
_FORBIDDEN_IN_NAMES = "\\/:*?\"<>|`&';"  # by MindRecord
_CACHE_LAYOUT = 1  # part of a cache's name: raise it when the arrays change
_QUIET_SECONDS = 5  # copying that takes longer shows its progress


class EmbeddingStore:
    """Unit text embeddings by image id; in memory are at most the ids, and of the rows those that are looked up."""

    def __init__(self, path: Path, metadata: dict[str, Any], cache: Path):
        self.path = path
        self.metadata = metadata
        self._cache = cache
        try:
            self._ids = _map(cache / "ids.npy")  # UTF-8 bytes of one width [n], in the file's order
            self._order = _map(cache / "order.npy")  # int64 [n]: sorts the ids
            self._text_ids = _map(cache / "text_ids.npy")  # int64 [n]
            self._embeddings = _RowFile(cache / "embeddings", len(self._ids), metadata["dim"], metadata["dtype"])
        except (OSError, ValueError) as error:
            raise UserError(f"{cache}: this copy of {path} is damaged; delete the folder") from error

    @classmethod
    def open(cls, path: str | Path, cache_dir: str | Path | None = None) -> EmbeddingStore:
        """Open a store; the first time, read the MindRecord, check every row and keep a copy as arrays.

        The copy lies in `cache_dir`, by default beside the store, or in the user's cache folder where the store's
        folder cannot be written. It is made anew when the store changes. Of many processes that open a store at once
        one makes the copy while the others wait. None of this needs MindSpore.

        Raises:
            UserError: the file or its index is missing, cut short, renamed or no embedding store; an id comes twice;
                a row is not finite or not of unit length; the copy cannot be written.
        """
        path = Path(path)
        header, metadata = _read_header(path)
        _check_file(path, header, metadata)
        status = path.stat()
        # Not a hash of the rows: that would read the whole file at every open.
        content = json.dumps([_CACHE_LAYOUT, header, status.st_size, status.st_mtime_ns])
        name = f".{path.name}.cache-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        places = [Path(cache_dir)] if cache_dir else [path.parent, user_cache()]
        cache = _find_cache(name, places)
        if cache is None:
            with _locked(path):
                cache = _find_cache(name, places) or _build_cache(path, metadata, name, places)
        return cls(path, metadata, cache)

    @property
    def dim(self) -> int:
        """Length k of an embedding."""
        return self.metadata["dim"]

    @property
    def ids(self) -> list[str]:
        """All image ids, in the file's order."""
        return [id.decode() for id in self._ids.tolist()]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, id: str) -> np.ndarray:
        """The embedding of one image, float32 [k]; `KeyError` where the store has none."""
        return self.rows([id])[0]

    def rows(self, ids: Sequence[str]) -> np.ndarray:
        """The embeddings of images, float32 [n, k]; `KeyError` names the first id that the store lacks."""
        return self.take(self._locate_all(ids))[0]

    def text_ids(self, ids: Sequence[str]) -> np.ndarray:
        """The text ids of images, int64 [n], equal where texts are; `KeyError` names the first id that is missing."""
        return self._text_ids[self._locate_all(ids)]

    def locate(self, ids: Sequence[str]) -> np.ndarray:
        """The row numbers of images in the file, int64 [n]; -1 where the store lacks an id."""
        keys = np.array([id.encode("utf-8", "surrogatepass") for id in ids], dtype=np.bytes_)
        # Cast to the stored width, or NumPy would widen a copy of all ids. A key cut short is found unequal below.
        positions = np.searchsorted(self._ids, keys.astype(self._ids.dtype), sorter=self._order)
        rows = self._order[np.minimum(positions, len(self) - 1)]
        return np.where(self._ids[rows] == keys, rows, -1)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings, float32 [n, k], and text ids, int64 [n], at row numbers that `locate` found."""
        return self._embeddings.read(rows), self._text_ids[rows]

    def check_descriptions(self, sha256: str, text: str) -> None:
        """Refuse (`UserError`) a store that was not made from this text of the description file with this hash."""
        check_descriptions(self.path, self.metadata, sha256, text)

    def check_encoder(self, encoder: str) -> None:
        """Refuse (`UserError`) a store of another text encoder: its embeddings live in another space.

        Of a path the last part counts, since a model may lie in one place here and in another there.
        """
        made_by = self.metadata["encoder"]
        if Path(made_by).name != Path(encoder).name:
            raise UserError(
                f"{self.path}: holds embeddings of the encoder {made_by}, not {encoder}; encode with {encoder}"
            )

    def _locate_all(self, ids: Sequence[str]) -> np.ndarray:
        rows = self.locate(ids)
        missing = rows < 0
        if missing.any():
            raise KeyError(ids[int(missing.argmax())])
        return rows

    def __reduce__(self):
        # A worker process opens the arrays again.
        return type(self), (self.path, self.metadata, self._cache)


def write_store(
    path: str | Path,
    ids: Sequence[str],
    text_ids: Sequence[int],
    embeddings: np.ndarray | Iterable[np.ndarray],
    metadata: Mapping[str, Any],
    dtype: str = "float16",
) -> None:
    """Write an embedding store, or replace the one at `path`: the new one appears complete or not at all.

    Args:
        ids: n distinct image ids.
        text_ids: n integers, equal for images whose texts are equal.
        embeddings: unit rows, float [n, k], or blocks [m, k] of them, in the order of `ids`.
        metadata: what the rows were made from: `encoder`, `text`, `truncated`, `descriptions_sha256` and, if known,
            `versions`. Added are `dim`, `dtype`, `normalised`, `count` and the versions of MindSpore and this package.
        dtype: `float16` or `float32`, the type of the rows in the file.

    Raises:
        UserError: there are no rows, an id comes twice, a row is not finite or not of unit length, or
            `check_destination` refuses.
    """
    path = Path(path)
    if not len(ids):
        raise UserError(f"{path}: there are no embeddings to write; give the description of at least one image")
    _sorted_ids(path, ids)

    def blocks() -> Iterator[tuple[Sequence[str], Sequence[int], np.ndarray]]:
        start = 0
        for rows in _slices(embeddings) if isinstance(embeddings, np.ndarray) else embeddings:
            stop = start + len(rows)
            yield ids[start:stop], text_ids[start:stop], rows
            start = stop

    write_blocks(path, len(ids), blocks(), metadata, dtype)


def write_blocks(
    path: str | Path,
    count: int,
    blocks: Iterable[tuple[Sequence[str], Sequence[int], np.ndarray]],
    metadata: Mapping[str, Any],
    dtype: str = "float16",
) -> None:
    """`write_store` from blocks of ids, text ids and unit rows; in memory is one of them.

    Args:
        count: how many rows there are in all, at least 1. That the ids are distinct is the caller's care.
        blocks, metadata, dtype: see `write_store`.
    """
    path = Path(path)
    blocks = iter(blocks)
    block = next(blocks)
    dim = block[2].shape[1]
    check_destination(path, dim, dtype)
    metadata = {**metadata, "dim": dim, "dtype": dtype, "normalised": True, "count": count}
    metadata["versions"] = {
        **metadata.get("versions", {}),
        "mindspore": importlib.metadata.version("mindspore"),
        "mindspore_gpt4image": __version__,
    }
    if lacking := _METADATA - metadata.keys():
        raise ValueError(f"metadata lacks {', '.join(sorted(lacking))}")

    from mindspore.mindrecord import FileWriter

    # A MindRecord holds its own name: it can be moved, but not renamed.
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder, path.name)
        writer = FileWriter(str(draft))
        writer.add_schema(_schema(dim, dtype), json.dumps(metadata))
        written, checksum = 0, Checksum(metadata)
        while block is not None:
            ids, text_ids, embeddings = block
            embeddings = _as_stored(path, ids, embeddings, dtype)
            rows = zip(ids, text_ids, embeddings)
            writer.write_raw_data([{"id": str(i), "text_id": int(t), "embedding": row} for i, t, row in rows])
            checksum.add(ids, text_ids, embeddings)
            written, block = written + len(embeddings), next(blocks, None)
        if written != count:
            raise ValueError(f"{count} ids, but {written} embeddings")
        writer.commit()
        write_checksum(draft, checksum)
        publish(draft, path)


def check_destination(path: str | Path, dim: int, dtype: str) -> None:
    """Make the folder of `path`, and refuse (`UserError`) what `write_store` could not write there.

    Call it before embeddings are made that took hours.
    """
    path = Path(path)
    if find_spec("mindspore") is None:
        raise UserError(f"{path}: only MindSpore can write an embedding store; install mindspore here too")
    if set(path.name) & set(_FORBIDDEN_IN_NAMES) or path.name != path.name.strip(" "):
        raise UserError(f"{path}: MindRecord forbids {_FORBIDDEN_IN_NAMES} and outer spaces in names; choose another")
    if dtype == "float16" and dim % 2:
        raise UserError(f"{path}: embeddings of odd length ({dim}) cannot be stored as float16; choose float32")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error.strerror}); choose another folder") from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a store, read without MindSpore; `UserError` where the file is missing or no embedding store."""
    return _read_header(Path(path))[1]


def check_descriptions(path: Path, metadata: Mapping[str, Any], sha256: str, text: str) -> None:
    """Refuse (`UserError`) embeddings, at `path`, that were not made from this text of the file with this hash."""
    if metadata["text"] != text:
        raise UserError(
            f"{path}: holds embeddings of the texts {metadata['text']!r}, not {text!r}; "
            f"ask for {metadata['text']!r} or encode {text!r}"
        )
    if metadata["descriptions_sha256"] != sha256:
        raise UserError(
            f"{path}: was made from other descriptions (sha256 {metadata['descriptions_sha256'][:12]}) "
            f"than the file given ({sha256[:12]}); encode that file again or give the one that was encoded"
        )


def check_file(path: str | Path) -> None:
    """Refuse (`UserError`) a store that is not whole, without MindSpore and without looking at its rows."""
    _check_file(Path(path), *_read_header(Path(path)))


def _schema(dim: int, dtype: str) -> dict[str, Any]:
    # MindRecord has no float16: two of them travel as one int32.
    embedding = {"type": "int32", "shape": [dim // 2]} if dtype == "float16" else {"type": dtype, "shape": [dim]}
    return {"id": {"type": "string"}, "text_id": {"type": "int64"}, "embedding": embedding}


def _as_stored(path: Path, ids: Sequence[str], rows: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float16 becomes inf, which the check names
        rows = np.ascontiguousarray(rows, dtype=dtype)
    _check_rows(path, ids, rows)
    return rows.view(np.int32) if dtype == "float16" else rows


def _slices(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS))


def publish(draft: Path, path: Path) -> None:
    """Move a finished MindRecord to its place, the data first and the index last."""
    umask = os.umask(0)
    os.umask(umask)
    index_file(path).unlink(missing_ok=True)
    for source, target in ((draft, path), (index_file(draft), index_file(path))):
        source.chmod(0o666 & ~umask)  # MindRecord leaves 0600
        source.replace(target)


def _read_header(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The header of a MindRecord file (length in 8 bytes, then JSON) and the metadata in its schema's text."""
    try:
        with path.open("rb") as file:
            header = read_header(file)
        metadata = json.loads(header["schema"][0]["desc"])
        lacking = _METADATA - metadata.keys()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); make it with tools/encode.py") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is no embedding store, or a damaged one; make it with tools/encode.py") from error
    if lacking:
        raise UserError(f"{path}: its metadata lacks {', '.join(sorted(lacking))}; make it anew with tools/encode.py")
    check_metadata(path, metadata)
    return header, metadata


def check_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse (`UserError`) metadata, read at `path`, that describe no rows."""
    wrong = [key for key, is_good in _RULES.items() if not is_good(metadata.get(key))]
    if not wrong and metadata["dtype"] == "float16" and metadata["dim"] % 2:
        wrong = ["dim"]
    if wrong:
        values = ", ".join(f"{key} is {metadata.get(key)!r}" for key in wrong)
        raise UserError(f"{path}: its metadata is damaged ({values}); make it anew")


def _check_file(path: Path, header: dict[str, Any], metadata: dict[str, Any]) -> None:
    if not index_file(path).is_file():
        raise UserError(f"{path}: {index_file(path).name} is missing beside it: copy it too, or encode again")
    name = header["shard_addresses"][0]
    if name != path.name:
        raise UserError(f"{path}: was written as {name}, and a MindRecord cannot be renamed; call it {name} again")
    # MindSpore itself reads the rows that are left of a file that was cut short, and says nothing.
    ends = (page["page_id"] * header["page_size"] + page["page_size"] for page in header["page"] or ())
    size, whole = path.stat().st_size, max((header["header_size"] + end for end in ends), default=0)
    if size < whole:
        raise UserError(f"{path}: was cut short: {size} of {whole} bytes are there; copy it or encode again")
    schema = header["schema"][0].get("schema")
    if schema != _schema(metadata["dim"], metadata["dtype"]):
        raise UserError(
            f"{path}: its metadata says {metadata['dtype']} of dim {metadata['dim']}, but its fields are "
            f"{json.dumps(schema)}; encode again"
        )


def _check_rows(path: Path, ids: Sequence[str], rows: np.ndarray) -> None:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    bad = ~(np.abs(norms - 1) <= _NORM_TOLERANCE)  # so that NaN is bad
    if bad.any():
        row = int(bad.argmax())
        fault = f"has norm {norms[row]:.4g}, not 1" if np.isfinite(norms[row]) else "is not finite"
        raise UserError(f"{path}: the embedding of id {ids[row]!r} {fault}; encode its text again")


def _sorted_ids(path: Path, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Ids as UTF-8 bytes of one width [n], and the order int64 [n] that sorts them."""
    try:
        encoded = np.array([id.encode() for id in ids], dtype=np.bytes_)
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: id {error.object!r} is not valid Unicode; rename the image") from error
    if wrong := next((id for id in ids if "\0" in id), None):
        raise UserError(f"{path}: id {wrong!r} holds a zero byte, as no file's name can; rename the image")
    order = np.argsort(encoded, kind="stable")
    repeats = encoded[order[1:]] == encoded[order[:-1]]
    if repeats.any():
        raise UserError(f"{path}: id {ids[order[int(repeats.argmax())]]!r} comes twice; keep one row of it")
    return encoded, order


def _map(path: Path) -> np.ndarray:
    # As a plain array: indexing np.memmap is slower and gives np.memmap again.
    return np.asarray(np.load(path, mmap_mode="r"))


class _RowFile:
    """The rows [n, k] of a file, read by their numbers.

    Not mapped into memory: around each row that is touched the kernel maps (and, cold, reads) far more than the row,
    measured at 300 MB for 256 rows of 1 kB.
    """

    def __init__(self, path: Path, count: int, dim: int, dtype: str):
        self._dim, self._dtype = dim, np.dtype(dtype)
        self._row_bytes = dim * self._dtype.itemsize
        if path.stat().st_size != count * self._row_bytes:
            raise ValueError(f"{path} does not hold {count} rows of {self._row_bytes} bytes")
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, numbers: np.ndarray) -> np.ndarray:
        """The rows at `numbers`, float32 [len(numbers), k]."""
        size, file, read = self._row_bytes, self._descriptor, os.pread
        data = b"".join([read(file, size, start) for start in (numbers * size).tolist()])
        rows = np.frombuffer(data, self._dtype).reshape(len(numbers), self._dim)
        return _to_float32(rows) if self._dtype == np.float16 else rows.copy()


def _to_float32(halves: np.ndarray) -> np.ndarray:
    """Finite float16 as float32, exactly; NumPy's own conversion takes several times as long."""
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13  # the exponent to its place
    bits &= ~0x70000000  # copies of the sign
    numbers = bits.view(np.float32)
    numbers *= np.float32(2.0**112)  # the difference of the exponents' biases
    return numbers


def _find_cache(name: str, places: Sequence[Path]) -> Path | None:
    return next((place / name for place in places if (place / name).is_dir()), None)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock on the file, which the kernel takes back however the process ends.

    Where the file system knows no locks nobody waits: each process makes its copy, and the first one is kept.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)  # NFS locks only what may be written
    except OSError:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build_cache(path: Path, metadata: dict[str, Any], name: str, places: Sequence[Path]) -> Path:
    """Copy the MindRecord into a folder of arrays, in the first place that can be written."""
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=place) as folder:
                draft = Path(folder, name)
                draft.mkdir()
                _write_arrays(path, metadata, draft)
                _commit_cache(draft, place / name)
        except OSError as error:
            reason = f"{place} ({error.strerror})"
        else:
            if place == path.parent:
                _remove_stale_caches(path, name)
            return place / name
    raise UserError(f"{path}: its copy for look-ups cannot be written to {reason}; make room or set XDG_CACHE_HOME")


def _commit_cache(draft: Path, cache: Path) -> None:
    try:
        draft.rename(cache)
    except OSError:
        # Another process was faster, and its copy is the same.
        if not cache.is_dir():
            raise


def _remove_stale_caches(path: Path, name: str) -> None:
    for cache in path.parent.glob(f".{glob.escape(path.name)}.cache-*"):
        if cache.name != name:
            shutil.rmtree(cache, ignore_errors=True)


def _write_arrays(path: Path, metadata: dict[str, Any], folder: Path) -> None:
    ids: list[str] = []
    text_ids: list[int] = []
    checksum = Checksum(metadata)
    bar = tqdm(desc=f"{path.name}: copy for look-ups", total=metadata["count"], unit="row", delay=_QUIET_SECONDS)
    with (folder / "embeddings").open("wb") as file, bar:
        try:
            blocks = read_rows(path, _read_header(path)[0], metadata["dim"], metadata["dtype"], _BLOCK_ROWS)
            for block_ids, block_text_ids, rows in blocks:
                _check_rows(path, block_ids, rows)
                rows.tofile(file)
                ids += block_ids
                text_ids += block_text_ids
                checksum.add(block_ids, block_text_ids, rows)
                bar.update(len(block_ids))
            is_whole = read_checksum(path) in (checksum.value, None)
        except ValueError as error:
            raise UserError(f"{path}: cannot be read, it is damaged; copy it or encode again") from error
    if not is_whole:
        raise UserError(f"{path}: is damaged, its checksum is wrong; copy it or encode again")
    if not ids or len(ids) != metadata["count"]:
        raise UserError(f"{path}: holds {len(ids)} rows, and its metadata says {metadata['count']}; encode again")
    encoded, order = _sorted_ids(path, ids)
    np.save(folder / "ids.npy", encoded)
    np.save(folder / "order.npy", order)
    np.save(folder / "text_ids.npy", np.array(text_ids, dtype=np.int64))
