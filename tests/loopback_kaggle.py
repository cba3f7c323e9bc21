"""Kaggle on the loopback interface: as much of its interface as its own client speaks to fetch a model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from loopback import served


@dataclass
class Kaggle:
    """models: by owner/model/framework/variation, the files of each version, oldest first. page: at most so
    many names in one answer. token: without which nothing is given out."""

    url: str
    models: dict[str, list[Mapping[str, bytes]]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    page: int = 2
    token: str | None = None
    broken: bool = False


@contextmanager
def running() -> Iterator[Kaggle]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            allowed = kaggle.token is None or self.headers.get("Authorization") == f"Bearer {kaggle.token}"
            status, content = answered(kaggle, self.path) if allowed else (403, b"{}")
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            kaggle.requests.append(self.requestline)

    with served(Handler) as url:
        kaggle = Kaggle(url)
        yield kaggle


def answered(kaggle: Kaggle, path: str) -> tuple[int, bytes]:
    if kaggle.broken:
        return 500, b"no"
    split = urlsplit(path)
    parts = unquote(split.path).strip("/").split("/")
    if parts[:3] != ["api", "v1", "models"]:
        return 404, b"{}"
    name, rest = "/".join(parts[3:7]), parts[7:]
    versions = kaggle.models.get(name)
    if versions is None:
        return 404, b"{}"
    if rest == ["get"]:
        return 200, json.dumps({"id": 1, "versionNumber": len(versions)}).encode()
    number, what, file = int(rest[0]), rest[1], "/".join(rest[2:])
    if not 0 < number <= len(versions):
        return 404, b"{}"
    files = versions[number - 1]
    if what == "files":
        query = parse_qs(split.query)
        start = int(query.get("page_token", ["0"])[0])
        size = min(kaggle.page, int(query["page_size"][0]))
        names = sorted(files)[start : start + size]
        more = str(start + size) if start + size < len(files) else ""
        listed = [{"name": name, "size": len(files[name])} for name in names]
        return 200, json.dumps({"files": listed, "nextPageToken": more}).encode()
    if what == "download" and file in files:
        return 200, files[file]
    return 404, b"{}"
