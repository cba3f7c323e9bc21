"""Who may ask, from where, what and how much: before any route sees it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from pictura.errors import InputError, PicturaError
from pictura.server import origins
from pictura.server.errors import Busy, Forbidden, Unauthorised, answer
from pictura.server.headers import secured
from pictura.server.keys import SCOPES, find
from pictura.server.logs import request_id
from pictura.server.rates import Listeners, Rates
from pictura.server.settings import Settings

__all__ = ["Caller", "Guard", "Seen", "scope_of"]

_log = logging.getLogger("pictura.server.access")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/healthz", "/readyz", "/favicon.ico")  # for everybody, to read
# The page, which asks for the key, and pictures, whose names cannot be guessed.
OPEN_BELOW = re.compile(r"/static/.*|/images/[^/]+(\.(png|jpe?g|webp)|/thumbnail)")
QUIET = ("/healthz", "/readyz", "/metrics")  # asked all the time by machines
LINGER = 1.0  # seconds that a body which nobody wants is read on, so that the answer arrives

_ADMIN = re.compile(r"/api/models/.*|/sdapi/v1/((un|re)load-.*|server-.*)")
_RATE = re.compile(r"/api/(images/[^/]+|choices|collections.*)")
_READ = re.compile(r"/api/inspect|/sdapi/v1/png-info")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """name: of the key, "" where none is needed. scopes: what it allows."""

    name: str = ""
    scopes: frozenset[str] = frozenset(SCOPES)


class TooLarge(InputError):
    """A body beyond the limit."""

    http_status = 413


class TooSlow(InputError):
    """A body that did not come in time."""

    http_status = 408


class Seen(Protocol):
    """Told of each request: the route's pattern, the method, the status, and the seconds until its end."""

    def __call__(self, route: str, method: str, status: int, seconds: float) -> None: ...


class Guard:
    """ASGI middleware; see the module."""

    def __init__(self, app: App, settings: Settings, rates: Rates, listeners: Listeners, seen: Seen) -> None:
        self._app, self._settings, self._seen = app, settings, seen
        self._rates, self._listeners = rates, listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._ask(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})  # there is no route for any

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        started, id, status = time.perf_counter(), _id(headers), 0
        method, scope = scope["method"], _usual(scope)
        token, caller = request_id.set(id), Caller()
        body = _Body(receive, self._settings.limits.body, self._settings.limits.slow)

        async def secure(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = body.answered = message["status"]
                message["headers"] = secured(scope["path"], message["headers"], id)
            await send(message)

        listens = scope["path"].endswith("/events")
        self._listeners.open += listens
        try:
            caller = scope.setdefault("state", {})["caller"] = self._admitted(scope, headers)
            await self._app(scope, body, secure)
        except PicturaError as error:
            if status:
                raise
            if isinstance(error, TooLarge) and "expect" not in headers:
                await body.drained()
            await answer(scope["path"], error)(scope, receive, secure)
        finally:
            self._listeners.open -= listens
            seconds = time.perf_counter() - started
            self._seen(_route(scope), method, status, seconds)
            _log.log(
                logging.DEBUG if scope["path"] in QUIET else logging.INFO,
                "request",
                extra={"fields": _fields({**scope, "method": method}, caller, id, status, seconds)},
            )
            request_id.reset(token)

    def _admitted(self, scope: Scope, headers: Mapping[str, str]) -> Caller:
        """The caller; an error where they may not ask this, or not now."""
        path, method, settings = scope["path"], scope["method"], self._settings
        length = headers.get("content-length", "0").strip()
        if not (length.isascii() and length.isdigit()):
            raise InputError("the header Content-Length is no number")
        if len(length) > 18 or int(length) > settings.limits.body:
            raise _too_large(settings.limits.body)
        if not settings.keys:
            origins.check(
                method,
                host=headers.get("host"),
                origin=headers.get("origin"),
                site=headers.get("sec-fetch-site"),
                scheme=scope["scheme"],
                allowed=settings.cors,
            )
            caller = Caller()
        elif method in ("GET", "HEAD") and (path in OPEN or OPEN_BELOW.fullmatch(path)):
            return Caller(scopes=frozenset())
        else:
            caller = self._known(method, path, headers)
        if self._listeners.open > self._listeners.most and path.endswith("/events"):
            raise Busy("too many streams of events are open; ask /api/jobs/ID instead", retry_after=5)
        return caller

    def _known(self, method: str, path: str, headers: Mapping[str, str]) -> Caller:
        key = find(self._settings.keys, _given(headers))
        if key is None:
            raise Unauthorised("this server needs an API key; send it as 'Authorization: Bearer KEY'")
        if (wanted := scope_of(method, path)) not in key.scopes:
            raise Forbidden(f"this key does not allow to {wanted} here ({', '.join(sorted(key.scopes))})")
        self._rates.request(key.name)
        return Caller(name=key.name, scopes=key.scopes)


class _Body:
    """`receive` for the application: no more than `most` bytes, in no more than `seconds`."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._most = receive, most
        self._until = time.monotonic() + seconds
        self._taken, self._whole = 0, False
        self.answered = 0  # the status, once there is one

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            if self.answered:  # nobody waits for the body any more
                return {"type": "http.disconnect"}
            raise TooSlow("the body did not come in time; send it faster") from None
        self._whole = not message.get("more_body", False)
        self._taken += len(message.get("body", b""))
        if self._taken > self._most:
            if not self._whole:
                await self.drained()
            raise _too_large(self._most)
        return message

    async def drained(self) -> None:
        """Read on for a moment: a client that is not done with sending does not read the answer."""
        try:
            async with asyncio.timeout(LINGER):
                while (await self._receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass


def scope_of(method: str, path: str) -> str:
    """What a key must allow for a request: `generate` for whatever is not known to need less or more."""
    if method in origins.SAFE or _READ.fullmatch(path):
        return "read"
    if _ADMIN.fullmatch(path):
        return "admin"
    return "rate" if _RATE.fullmatch(path) else "generate"


def _usual(scope: Scope) -> Scope:
    """With no slash at the end of the path, and HEAD as GET: its answer's body is left out further down."""
    path = scope["path"].rstrip("/") or "/"
    head = scope["method"] == "HEAD" and not path.endswith("/events")  # which would not end
    return {**scope, "path": path, "method": "GET" if head else scope["method"]}


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the body has more than {most:,} bytes; send less")


def _given(headers: Mapping[str, str]) -> str:
    """The key in whatever form a client sends it: Bearer, Basic (its password), or api-key."""
    kind, _, rest = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return _text(rest.strip().encode("latin-1"))
    if kind.lower() == "basic":
        try:
            user, _, password = _text(base64.b64decode(rest, validate=True)).partition(":")
        except (binascii.Error, ValueError):
            return ""
        return password or user
    return _text(headers.get("api-key", "").encode("latin-1"))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _id(headers: Mapping[str, str]) -> str:
    given = headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", given) else secrets.token_hex(8)


def _route(scope: Scope) -> str:
    """The pattern of the route that answered, so that ids do not make a figure each."""
    return getattr(scope.get("route"), "path", None) or "other"


def _fields(scope: Scope, caller: Caller, id: str, status: int, seconds: float) -> dict[str, Any]:
    client = scope.get("client")
    return {
        "request": id,
        "method": scope["method"],
        "path": scope["path"][:200],
        "status": status or 499,  # gone before there was an answer
        "ms": round(1000 * seconds, 1),
        "key": caller.name,
        "client": client[0] if client else None,
    }
