"""A hub on the loopback interface: as much of its protocol as its own clients speak to fetch a model or the
files of a data set, whose repository is called datasets/OWNER/NAME here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from loopback import served

Files = Mapping[str, bytes]


@dataclass
class Repository:
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def push(self, files: Files, ref: str = "main") -> str:
        """A new commit with these files; returns its name."""
        digest = hashlib.sha1(repr((sorted(files.items()), len(self.commits))).encode()).hexdigest()
        self.commits[digest] = dict(files)
        self.refs[ref] = digest
        return digest


@dataclass
class Hub:
    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    broken: bool = False  # answers 500 to everything


@contextmanager
def running() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve(body=True)

        def do_HEAD(self) -> None:
            self._serve(body=False)

        def log_message(self, format: str, *args: object) -> None:
            hub.requests.append(self.requestline)

        def _serve(self, body: bool) -> None:
            status, headers, content = _answer(hub, unquote(urlsplit(self.path).path))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

    with served(Handler) as url:
        hub = Hub(url)
        yield hub


def _answer(hub: Hub, path: str) -> tuple[int, dict[str, str], bytes]:
    if hub.broken:
        return 500, {}, b"no"
    parts = path.strip("/").split("/")
    api = parts[0] == "api"
    parts = parts[1:] if api else parts
    name, parts = "/".join(parts[:3]), parts[1:] if parts[0] in ("models", "datasets") else parts
    repository = hub.repositories.get(name if name.startswith("datasets/") else "/".join(parts[:2]))
    if repository is None:
        return 401, {"X-Error-Code": "RepoNotFound"}, b"{}"
    what, rest = (parts[2], parts[3:]) if len(parts) > 2 else ("revision", ["main"])
    revision, tail = (rest[0], "/".join(rest[1:])) if what != "revision" else ("/".join(rest), "")
    commit = repository.refs.get(revision, revision)
    if commit not in repository.commits:
        return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
    files = repository.commits[commit]
    if api and what == "revision":
        siblings = [{"rfilename": name} for name in files]
        found = {"id": "/".join(parts[:2]), "sha": commit, "siblings": siblings, "private": False}
        return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()
    if repository.gated:
        return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
    if api and what == "tree":
        return (
            200,
            {"Content-Type": "application/json"},
            json.dumps([_entry(*f) for f in files.items()]).encode(),
        )
    if what == "resolve" and tail in files:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_oid(files[tail])}"', "Accept-Ranges": "bytes"}
        return 200, headers, files[tail]
    return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"


def _entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}


def _oid(content: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
