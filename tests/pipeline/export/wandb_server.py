"""A stand-in for the server of W&B, which cannot be installed here: what the client needs of it to open a run, go on
with one, and hand over its history. It answers in the forms of wandb 0.31."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "1", "name": "small", "entity": {"id": "2", "name": "ada"}}


class Kept:
    """What the server has of its one run."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.run: dict[str, Any] | None = None
        self.keys: set[str | None] = set()
        """What clients authorised themselves with."""
        self.lock = threading.Lock()

    def resume_status(self) -> dict[str, Any]:
        """The answer to whether there is such a run, and how far it is."""
        if self.run is None:
            return {"model": None}
        last = self.history[-1] if self.history else {}
        bucket = {
            "id": "3",
            "name": self.run["name"],
            "displayName": self.run["displayName"],
            "tags": [],
            "notes": None,
            "config": self.run["config"],
            "wandbConfig": json.dumps({"t": 1}),  # without it the client takes the run for one that never began
            "summaryMetrics": json.dumps(last),
            "historyLineCount": len(self.history),
            "historyTail": json.dumps([json.dumps(last)] if last else []),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
        }
        return {"model": {**PROJECT, "bucket": bucket}}

    def upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        """Make the run, or change what is given of it."""
        new, known = self.run is None, self.run or {}
        self.run = known | {name: value for name, value in given.items() if value is not None}
        bucket = {"id": "3", "name": given["name"], "displayName": self.run.get("displayName"), "project": PROJECT}
        bucket |= {"description": None, "config": self.run.get("config"), "sweepName": None}
        return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": len(self.history)}, "inserted": new}}

    def take(self, streamed: dict[str, Any]) -> None:
        """Keep rows of the history; each call says from which row on it has them."""
        part = streamed.get("files", {}).get("wandb-history.jsonl")
        if part is not None:
            self.history[part["offset"] :] = [json.loads(line) for line in part["content"]]


class _Server(ThreadingHTTPServer):
    def handle_error(self, *given: object) -> None:
        """The client drops the connections that it keeps open when it ends."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*given)  # type: ignore[arg-type]


@contextmanager
def serve() -> Iterator[tuple[str, Kept]]:
    """A server on a free port of this machine: its address, and what it has got."""
    kept = Kept()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *given: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            with kept.lock:
                answer = json.dumps(self._answer(body)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST

        def _answer(self, body: bytes) -> dict[str, Any]:
            if self.path.endswith("/file_stream"):
                kept.take(json.loads(body))
                return {}
            if self.path != "/graphql":
                return {}
            kept.keys.add(self.headers.get("authorization"))
            query = json.loads(body)
            if query["operationName"] == "RunResumeStatus":
                return {"data": kept.resume_status()}
            if query["operationName"] == "UpsertBucket":
                return {"data": kept.upsert(query["variables"])}
            if query["operationName"] == "CreateRunFiles":
                address = f"http://{self.headers['host']}/kept"
                files = [{"name": name, "uploadUrl": address} for name in query["variables"]["files"]]
                return {"data": {"createRunFiles": {"runID": "3", "uploadHeaders": [], "files": files}}}
            return {"data": {}}

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kept
    finally:
        server.shutdown()
        server.server_close()
