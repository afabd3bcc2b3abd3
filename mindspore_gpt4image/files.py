"""Writing files so that a kill at any moment leaves the old one or the new one, never a part."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from mindspore_gpt4image.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to `path` when the block ends well, removed when it fails.

    The temporary name keeps the ending, since some writers go by it. Folders are made as needed.

    Raises:
        UserError: the place cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        # MindSpore leaves its files readable by their owner alone.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)


def user_cache() -> Path:
    """The folder for what can be made again and has no better place."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindspore_gpt4image"


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """Hold the lock that is the file `path`, open to append; wait while another holds it. It dies with its owner."""
    with path.open("ab") as file:
        # Some network file systems have no locks. Then nobody waits, and each does the work.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold the lock that is the file `path`; refuse at once where another process holds it.

    The lock is the process's own: neither a kill nor a child that lives on leaves it behind.

    Raises:
        UserError: another process holds it, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab+", buffering=0)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be written ({error.strerror or error})") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            owner = file.read().decode(errors="replace") or "another process"
            raise UserError(f"{path.parent}: {owner} works there; wait for it, stop it, or choose another") from error
        except OSError:  # a file system without locks
            pass
        # Who it is helps the one that is refused; a full disk will be told where it matters.
        with suppress(OSError):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def atomic_write(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
