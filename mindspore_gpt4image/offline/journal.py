"""A description set that is written line by line, by one process or by several, each of which may be killed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.offline.ranks import Ranks
from mindspore_gpt4image.sources.descriptions import parse_line

FAILURES = "failures.jsonl"


class Journal:
    """One process's part of a description set: `output` itself, or of several processes `<stem>.<rank>-of-<world>`.

    Nothing is ever lost or described twice: what any part beside it holds counts as done, so that a run may go on with
    more or fewer processes, and a last line that a kill has torn is cut off. Images that get no text are listed in
    `failures.jsonl` beside it (of several processes `failures.<rank>-of-<world>.jsonl`), anew in each run.

    Attributes:
        path: the part.
        failures: where this process lists what failed.
        done: ids that are described already.

    Raises:
        UserError: a part is damaged, lacks one of the texts `keys`, cannot be written, or is being written by another
            process.
    """

    def __init__(self, output: str | Path, keys: Sequence[str], ranks: Ranks):
        output = Path(output)
        failures = output.with_name(FAILURES)
        self.path = part(output, ranks)
        self.failures = part(failures, ranks)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            self._lock()
            parts = [path for path in [output, *parts_of(output)] if path.exists()]
            # The first process also takes care of what no process of this run writes to.
            for path in parts:
                if path == self.path or (ranks.rank == 0 and not path.stem.endswith(f"-of-{ranks.world}")):
                    _mend(path)
            for path in [failures, *parts_of(failures)]:
                if path == self.failures or (ranks.rank == 0 and not path.stem.endswith(f"-of-{ranks.world}")):
                    path.unlink(missing_ok=True)
            self.done = {id for path in parts for id in _ids(path, keys)}
        except OSError as error:
            raise UserError(f"{error.filename or self.path}: cannot be written ({error.strerror})") from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{self.path}: another process is writing it; wait for it or stop it") from error
        except OSError:  # a file system without locks
            return

    def write(self, id: str, texts: Mapping[str, str]) -> None:
        """Append one image's line; it is handed to the system at once."""
        _append(self._file, self.path, {"id": id, **texts})

    def fail(self, id: str, reason: str) -> None:
        """Note that an image got no text."""
        with self.failures.open("ab", buffering=0) as file:
            _append(file, self.failures, {"id": id, "reason": reason})

    def close(self) -> None:
        self._file.close()


def part(path: Path, ranks: Ranks) -> Path:
    """A process's own file among those of all."""
    return path if ranks.world == 1 else path.with_name(f"{path.stem}.{ranks.rank}-of-{ranks.world}{path.suffix}")


def parts_of(output: Path) -> list[Path]:
    """The parts of several processes that lie beside `output`."""
    return sorted(output.parent.glob(f"{_escaped(output.stem)}.*-of-*{_escaped(output.suffix)}"))


def _escaped(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _append(file, path: Path, row: Mapping[str, str]) -> None:
    line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
    try:
        if file.write(line) != len(line):
            raise OSError("the disk is full")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); run again to go on") from error


def _mend(path: Path) -> None:
    """Cut off a last line that was not written whole; a whole one that only lacks its end gets it."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        tail, start = b"", end
        while start and b"\n" not in tail:
            start = max(0, start - (1 << 16))
            file.seek(start)
            tail = file.read(end - start)
        tail = tail[tail.rfind(b"\n") + 1 :]
        if not tail:
            return
        if _is_json(tail):
            file.seek(end)
            file.write(b"\n")
        else:
            file.truncate(end - len(tail))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _ids(path: Path, keys: Sequence[str]):
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or (not line.endswith(b"\n") and not _is_json(line)):
                continue  # torn, or just being written by its process
            id, texts = parse_line(line, f"{path}, line {number}")
            for key in keys:
                if key not in texts:
                    raise UserError(
                        f"{path}, line {number}: id {id!r} has no {key!r}, so it was made with another --text; "
                        "give that one again or choose another --output"
                    )
            yield id
