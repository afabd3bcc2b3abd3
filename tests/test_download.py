"""Downloads from a real server on this machine that knows ranges, breaks off and lies, as it is told."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mindspore_gpt4image.download import fetch
from mindspore_gpt4image.errors import UserError

CONTENT = bytes(range(256)) * 20000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of `CONTENT`; `ranges`: whether it knows them, `most`: bytes an answer before it breaks off."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            server.requests.append(self.headers.get("Range"))
            if self.path != "/a/weights.ckpt":
                self.send_error(404)
                return
            begin = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1]) if self.headers["Range"] else 0
            begin = begin if server.ranges else 0
            if begin >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(CONTENT) - begin))
            self.end_headers()
            self.wfile.write(CONTENT[begin : begin + server.most])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.ranges, server.most = [], True, len(CONTENT)
    server.url = f"http://127.0.0.1:{server.server_port}/a/weights.ckpt"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "mindspore_gpt4image").iterdir())


def test_a_file_is_downloaded_once(server, tmp_path):
    path = fetch(server.url, SHA256)
    assert path.read_bytes() == CONTENT
    assert left(tmp_path) == [f"{SHA256[:16]}-weights.ckpt"]
    assert fetch(server.url, SHA256) == path
    assert server.requests == [None]


def test_a_download_that_broke_off_goes_on(server, tmp_path):
    server.most = 3_000_000
    with pytest.raises(UserError, match=r"cannot be downloaded \(.*\); try again, it goes on where it stopped"):
        fetch(server.url, SHA256)
    assert left(tmp_path) == [f"{SHA256[:16]}-weights.ckpt.part"]
    server.most = len(CONTENT)
    assert fetch(server.url, SHA256).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=3000000-"]


def test_a_server_without_ranges_sends_it_anew(server, tmp_path):
    server.most, server.ranges = 3_000_000, False
    with pytest.raises(UserError):
        fetch(server.url, SHA256)
    server.most = len(CONTENT)
    assert fetch(server.url, SHA256).read_bytes() == CONTENT


def test_a_part_that_was_whole_is_taken(server, tmp_path):
    (tmp_path / "mindspore_gpt4image").mkdir()
    (tmp_path / "mindspore_gpt4image" / f"{SHA256[:16]}-weights.ckpt.part").write_bytes(CONTENT)
    assert fetch(server.url, SHA256).read_bytes() == CONTENT


def test_a_wrong_hash_is_refused_and_nothing_is_left(server, tmp_path):
    wrong = "0" * 64
    with pytest.raises(UserError, match=r"is not the file that was released .*; nothing was kept"):
        fetch(server.url, wrong)
    assert left(tmp_path) == []


def test_a_file_that_was_changed_in_the_cache_is_fetched_anew(server, tmp_path):
    fetch(server.url, SHA256).write_bytes(b"changed")
    assert fetch(server.url, SHA256).read_bytes() == CONTENT


def test_no_such_file_and_no_server_are_one_line(server, tmp_path):
    with pytest.raises(UserError, match="other: cannot be downloaded"):
        fetch(server.url.replace("a/weights.ckpt", "other"), SHA256)
    with pytest.raises(UserError, match="cannot be downloaded"):
        fetch("http://127.0.0.1:9/weights.ckpt", SHA256)


def test_several_at_once_download_it_once(server, tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(server.url, SHA256))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert found[0].read_bytes() == CONTENT
    assert server.requests == [None]
    assert left(tmp_path) == [f"{SHA256[:16]}-weights.ckpt"]
