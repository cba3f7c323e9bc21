"""A real HTTP server on loopback that records what it is asked and answers as a test says."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

SECRET = "sk-never-print-this-0123456789"


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def form(self) -> dict[str, bytes]:
        """The parts of a multipart body by name."""
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + self.content).get_payload()
        return {p.get_param("name", header="content-disposition"): p.get_payload(decode=True) for p in parts}


@dataclass
class Answer:
    status: int = 200
    body: object = b""  # bytes, a JSON value, or pieces of bytes that are sent as they come
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False  # hang up in the middle
    drop: bool = False  # hang up without a word


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, *_: object) -> None:
        pass  # clients that hang up are part of the tests


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address where `handler` answers until the block ends."""
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Loopback:
    """`with Loopback(answer) as server`: `answer(asked)` gives an `Answer`, a JSON value or bytes."""

    def __init__(self, answer: Callable[[Asked], Any]) -> None:
        self.asked: list[Asked] = []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                names = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, names, content)
                with lock:
                    outer.asked.append(asked)
                found = answer(asked)
                reply = found if isinstance(found, Answer) else Answer(body=found)
                self.reply(reply)

            do_GET = do_POST = do_PUT = do_DELETE = handle_one

            def reply(self, reply: Answer) -> None:
                if reply.drop:
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in reply.headers.items()}
                body = reply.body
                if not isinstance(body, (bytes, Iterable)) or isinstance(body, (dict, list, str)):
                    body = json.dumps(body).encode()
                    headers.setdefault("content-type", "application/json")
                self.send_response(reply.status)
                whole = isinstance(body, bytes)
                if whole:
                    headers.setdefault("content-length", str(len(body)))
                else:
                    headers["connection"] = "close"
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if reply.cut:
                    self.wfile.write(body[: len(body) // 2] if whole else b"".join(body))
                    self.close_connection = True
                    return
                for piece in [body] if whole else body:
                    self.wfile.write(piece)
                    self.wfile.flush()
                self.close_connection = self.close_connection or not whole

            def log_message(self, *_: object) -> None:
                pass

        self._served = served(Handler)

    def __enter__(self) -> Loopback:
        self.url = self._served.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._served.__exit__(None, None, None)

    def bodies(self, method: str = "POST") -> list[Any]:
        return [asked.json for asked in self.asked if asked.method == method]


def png(colour: object = (10, 100, 200), size: tuple[int, int] = (16, 8), kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind)
    return file.getvalue()


def b64(colour: object = (10, 100, 200), size: tuple[int, int] = (16, 8)) -> str:
    return base64.b64encode(png(colour, size)).decode()
