"""A proxy before a chat server that makes what goes wrong on a network, on demand."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable
from urllib.parse import urlsplit


class FaultyProxy:
    """Forwards to `upstream` (`http://host:port`), but for the next calls of a chat in `faults`, in their order.

    A fault is called with the handler; if it returns True, the request is then forwarded all the same.

    Attributes:
        url: the API's base URL.
        requests: (time, body, headers) of each call of a chat.
        most_at_once: how many calls of a chat were in flight at a time at most.
    """

    def __init__(self, upstream: str):
        self.faults: deque[Callable] = deque()
        self.requests: list[tuple[float, dict, dict]] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._upstream = urlsplit(upstream)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                proxy.forward(self, b"")

            def do_POST(self):
                proxy.chat(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # clients that are killed reset their connections
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def chat(self, handler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        if not body:
            return
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.requests.append((time.monotonic(), json.loads(body), headers))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            fault = self.faults.popleft() if self.faults else None
        try:
            if fault is None or fault(handler):
                self.forward(handler, body)
        finally:
            with self._lock:
                self._at_once -= 1

    def forward(self, handler, body: bytes) -> None:
        connection = http.client.HTTPConnection(self._upstream.hostname, self._upstream.port, timeout=120)
        try:
            connection.request(handler.command, handler.path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer(handler, response.status, response.read())
        finally:
            connection.close()

    def reset(self) -> None:
        self.faults.clear()
        self.requests.clear()
        self.most_at_once = 0

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(handler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"content-type": "application/json", "content-length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def error(status: int, message: str | None = None, code: str | None = None, **headers: str) -> Callable:
    """Answers with an HTTP status."""
    body = json.dumps({"error": {"message": message or f"fault {status}", "code": code}}).encode()
    return lambda handler: answer(handler, status, body, **headers)


def cut(handler) -> None:
    """Ends the connection in the middle of an answer."""
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id":')
    handler.close_connection = True


def delay(seconds: float) -> Callable:
    """Lets the request wait, then forwards it."""

    def wait(handler) -> bool:
        time.sleep(seconds)
        return True

    return wait


def says(text: str | None, finish_reason: str = "stop", refusal: str | None = None) -> Callable:
    """Answers in the model's place."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body = {
        "id": "0",
        "object": "chat.completion",
        "created": 0,
        "model": "none",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }
    return lambda handler: answer(handler, 200, json.dumps(body).encode())
