"""Fetching a file whose hash is known: with progress, going on where it stopped, kept in the user's cache."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from mindspore_gpt4image.errors import UserError
from mindspore_gpt4image.files import locked, user_cache
from mindspore_gpt4image.sources.descriptions import file_sha256

TIMEOUT = 30  # seconds without a byte
_BLOCK = 1 << 20


def fetch(url: str, sha256: str) -> Path:
    """The file at `url` in the cache, downloaded if it is not there yet; its hash is checked at each use.

    A download that breaks off leaves its part, and goes on from there the next time. One of the wrong hash leaves
    nothing.

    Raises:
        UserError: the server cannot be reached or refuses, the disk is full, or the hash is another one.
    """
    name = PurePosixPath(url.partition("?")[0]).name or "download"
    path = user_cache() / f"{sha256[:16]}-{name}"
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # One downloads, the others wait and find the file.
        with locked(part) as file:
            if path.is_file() and file_sha256(path) == sha256:
                part.unlink(missing_ok=True)
                return path
            _download(url, file, name)
            file.flush()
            found = file_sha256(part)
            if found != sha256:
                part.unlink()
                raise UserError(
                    f"{url}: is not the file that was released (SHA-256 {found[:16]}… instead of {sha256[:16]}…); "
                    "nothing was kept"
                )
            part.replace(path)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: cannot be downloaded ({reason}); try again, it goes on where it stopped") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    return path


def _download(url: str, file, title: str) -> None:
    """Append to `file` what it still lacks."""
    have = file.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        # Nothing lies beyond the end: the part was whole.
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            # The server sends all of it, whatever it was asked for.
            have = 0
            file.truncate(0)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with tqdm(total=total, initial=have, desc=title, unit="B", unit_scale=True, dynamic_ncols=True) as bar:
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
        if total is not None and bar.n < total:
            raise ConnectionError(f"it broke off after {bar.n} of {total} bytes")
