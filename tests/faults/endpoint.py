"""An OpenAI-compatible endpoint on this machine that fails on purpose, one way per request."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "served-model"
Behave = Callable[[str, int], str]  # the user's text and how often it was asked -> what to do


@dataclass
class Endpoint:
    """A running endpoint.

    Attributes:
        address: What to give as ``augmenter.endpoint.base_url``.
        asked: How often each user text came.
        did: How often each behaviour was shown.
        keys: The Authorization headers that came.
        bodies: The requests that came.
        most: Most requests under way at the same time.
    """

    address: str
    asked: Counter[str] = field(default_factory=Counter)
    did: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    most: int = 0
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def similar(text: str, seed: int) -> str:
    """A pair near the prompt's own, as a good model would write it."""
    source = text.partition("Input: [")[2].partition("], Response: [")
    response = source[2].rpartition("]")[0]
    return f"Input: [{source[0]} {seed % 97}], Response: [{response or 'new'}]"


def always(_text: str, _times: int) -> str:
    """No fault."""
    return "good"


@contextmanager
def serve(behave: Behave = always, port: int = 0) -> Iterator[Endpoint]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][-1]["content"]
            with endpoint.lock:
                endpoint.asked[text] += 1
                endpoint.keys.add(self.headers.get("Authorization", ""))
                endpoint.bodies.append(body)
                endpoint.under_way += 1
                endpoint.most = max(endpoint.most, endpoint.under_way)
                what = behave(text, endpoint.asked[text])
                endpoint.did[what] += 1
            try:
                self.act(what, body, text)
            except OSError:  # the client gave up
                self.close_connection = True
            finally:
                with endpoint.lock:
                    endpoint.under_way -= 1

        def act(self, what: str, body: dict[str, Any], text: str) -> None:
            if what.isdigit():
                self.send(int(what), b'{"error": {"message": "no"}}')
            elif what.startswith("429 "):
                self.send(429, b"{}", {"Retry-After": what.partition(" ")[2]})
            elif what == "garbage":
                self.send(200, b"\x00\xff<html>not what you asked for")
            elif what == "empty body":
                self.send(200, b"")
            elif what == "other json":
                self.send(200, b'{"choices": "none"}')
            elif what == "no choices":
                self.send(200, json.dumps({"model": MODEL, "choices": []}).encode())
            elif what == "huge":
                self.send(200, completion("x" * (4 << 20)))
            elif what == "packed":
                self.send(200, packed(), {"Content-Encoding": "gzip"})
            elif what == "hang":
                self.wait(30)
            elif what == "drip":
                self.drip(completion("slow"))
            elif what == "drip head":
                self.connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                self.wait(30, b"x")
            elif what == "break":
                self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
                self.close_connection = True
            elif what == "other model":
                self.send(200, completion("x", model="another-model"))
            elif what == "empty text":
                self.send(200, completion(""))
            elif what == "null text":
                self.send(200, completion(None))
            elif what == "list content":
                self.send(200, completion([{"type": "text", "text": similar(text, 0)}]))
            elif what == "refusal":
                self.send(200, completion(None, refusal="I will not write this"))
            elif what == "filtered":
                self.send(200, completion("Input: [", finish="content_filter"))
            elif what == "cut":
                self.send(200, completion("Input: [a], Response: [b", finish="length"))
            elif what == "quota":
                error = {"message": "You exceeded your quota", "code": "insufficient_quota"}
                self.send(429, json.dumps({"error": error}).encode())
            elif what == "echo":
                error = {"message": f"cannot answer: {text}"}
                self.send(400, json.dumps({"error": error}).encode())
            elif what == "key in message":
                key = self.headers.get("Authorization", "").removeprefix("Bearer ")
                error = {"message": f"key {key} has\n no access to \x1b[31m{'x' * 400}"}
                self.send(400, json.dumps({"error": error}).encode())
            elif what == "surrogate":
                self.send(200, completion("Input: [half \ud800 a character], Response: [x]"))
            else:
                time.sleep(0.01)
                self.send(200, completion(similar(text, body.get("seed") or 0)))

        def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def drip(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if stopped.wait(0.2):
                    return

        def wait(self, seconds: float, drop: bytes = b"") -> None:
            end = time.monotonic() + seconds
            while time.monotonic() < end and not stopped.wait(0.1):
                self.connection.sendall(drop)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    stopped = threading.Event()

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Say nothing: a client that gave up is what is tested."""

    server = Server(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


@cache
def packed() -> bytes:
    """A completion of 64 MiB in some 60 kB."""
    return gzip.compress(completion(" " * (64 << 20)))


def completion(
    text: Any, model: str = MODEL, refusal: str | None = None, finish: str = "stop"
) -> bytes:
    """A chat completion as the interface has it."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    return json.dumps(
        {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [choice],
            "usage": usage,
        }
    ).encode()
