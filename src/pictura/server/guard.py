"""Who may ask, from where, and how much they may send: before any route sees it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pictura.errors import InputError, PicturaError
from pictura.server.errors import Forbidden, Unauthorised, answer
from pictura.server.settings import Settings

__all__ = ["Caller", "Guard"]

_log = logging.getLogger("pictura.server.access")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/healthz", "/readyz")  # for everybody; and pictures, whose names cannot be guessed
OPEN_BELOW = ("/images/", "/static/")
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """name: of the key, "" where none is needed."""

    name: str = ""


class TooLarge(InputError):
    """A body beyond the limit."""

    http_status = 413


class Guard:
    """ASGI middleware; see the module."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._keys = {hashlib.sha256(key.encode()).digest(): key[:0] or "key" for key in settings.keys}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        started, id, status = time.perf_counter(), _request_id(headers), 0
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._settings.limits.body:
                raise TooLarge(f"the body has more than {self._settings.limits.body >> 20} MB")
            return message

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", id.encode())]
            await send(message)

        try:
            scope.setdefault("state", {})["caller"] = self._admitted(scope, headers)
            await self._app(scope, limited, named)
        except PicturaError as error:
            if status:
                raise
            await answer(scope["path"], error)(scope, receive, named)
        finally:
            _log.info(
                "%s %s %d %.1f ms id=%s",
                scope["method"], scope["path"], status, 1000 * (time.perf_counter() - started), id,
            )  # fmt: skip

    def _admitted(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """The caller; an error where they may not ask this."""
        path, method = scope["path"], scope["method"]
        if int(headers.get("content-length", "0") or "0") > self._settings.limits.body:
            raise TooLarge(f"the body has more than {self._settings.limits.body >> 20} MB")
        if not self._keys:
            _from_here(method, headers)
            return Caller()
        if method in SAFE and (path in OPEN or path.startswith(OPEN_BELOW) or path == "/"):
            return Caller()
        digest = hashlib.sha256(_given(headers).encode()).digest()
        for known, name in self._keys.items():
            if hmac.compare_digest(known, digest):
                return Caller(name=name)
        raise Unauthorised("this server needs an API key; send it as 'Authorization: Bearer KEY'")


def _from_here(method: str, headers: Mapping[str, str]) -> None:
    """Without a key only this machine may ask, and no page of another site may make it."""
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    if host not in ("localhost", "127.0.0.1", "::1") and not host.startswith("127."):
        raise Forbidden("this server answers on loopback names only; start it with an API key for others")
    origin = headers.get("origin")
    if method not in SAFE and origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise Forbidden("requests from other pages are refused")


def _given(headers: Mapping[str, str]) -> str:
    """The key in whatever form a client sends it: Bearer, Basic (its password), or api-key."""
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return rest.strip()
    if kind.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return headers.get("api-key", "")


def _request_id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if given.isascii() and given.isalnum() and len(given) <= 64 else secrets.token_hex(8)
