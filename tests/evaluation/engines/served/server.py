"""A small HTTP server in the test's process that answers as an OpenAI-compatible one, or as badly as a test asks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "tiny"
Behaviour = Callable[["Handler", dict[str, Any]], bool]
"""What a server does with a request instead of answering; False: it answers as it should."""


class Handler(BaseHTTPRequestHandler):
    """Answers with as many words as the limit allows, at most five, each a token."""

    protocol_version = "HTTP/1.1"
    server: TestServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        kind = self.server.kind
        if self.path == "/v1/models" and self.server.lists_models:
            entry = {
                "id": self.server.model,
                "owned_by": kind,
                "max_model_len": self.server.context,
                "root": "/models/a",
            }
            self.send_json(200, {"data": [entry if kind else {"id": self.server.model}]})
        elif self.path == "/version" and kind == "vllm":
            self.send_json(200, {"version": self.server.version})
        else:
            self.send_json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.asked.append((self.path, body, self.headers.get("authorization")))
        if self.server.behaviour is not None and self.server.behaviour(self, body):
            return
        self.answer(body)

    def answer(self, body: dict[str, Any], *, end: bool = True, model: str | None = None, most: int = 5) -> None:
        chat = self.path == "/v1/chat/completions"
        limit: int = body.get("max_tokens") or body["max_completion_tokens"]
        words = [f"w{number} " for number in range(min(limit, most))]
        finish = "stop" if len(words) == 5 else "length"
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        head = {"model": model or self.server.model}
        for number, word in enumerate(words):
            choice: dict[str, Any] = {"delta": {"content": word}} if chat else {"text": word}
            if self.server.kind == "vllm" and body.get("return_token_ids"):
                choice["token_ids"] = [number]
            if body.get("logprobs") is True and self.server.has_logprobs:
                choice["logprobs"] = {"content": [{"token": word, "logprob": -0.5}]}
            self.event({**head, "choices": [choice]})
        if not end:
            self.close_connection = True
            return
        self.event({**head, "choices": [{"delta": {}, "finish_reason": finish}]})
        self.event({**head, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(words)}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, value: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def send_json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> bool:
        return self.send_text(status, json.dumps(value), "application/json", headers)

    def send_text(self, status: int, text: str, kind: str = "text/html", headers: dict[str, str] | None = None) -> bool:
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(text)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())
        return True


class TestServer(ThreadingHTTPServer):
    """The server; `behaviour` may be changed while it runs."""

    __test__ = False
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0, kind: str = "vllm", behaviour: Behaviour | None = None) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.kind, self.behaviour, self.model = kind, behaviour, MODEL
        self.version, self.context, self.lists_models, self.has_logprobs = "0.31.0", 4096, True, True
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: object) -> None:
        pass  # the client went away, as tests have it do


@contextmanager
def serving(server: TestServer) -> Iterator[TestServer]:
    """Serve until the end of the block, and have the port closed then."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def times(count: int, behaviour: Behaviour) -> Behaviour:
    """A behaviour for the first `count` requests, and then none."""
    left = [count]
    lock = threading.Lock()

    def limited(handler: Handler, body: dict[str, Any]) -> bool:
        with lock:
            left[0] -= 1
            mine = left[0] >= 0
        return mine and behaviour(handler, body)

    return limited


def half(handler: Handler, body: dict[str, Any]) -> bool:
    """Half a stream."""
    handler.answer(body, end=False)
    return True


def silent(handler: Handler, body: dict[str, Any]) -> bool:
    """No byte for longer than tests wait."""
    time.sleep(0.6)
    return True
