"""HTTP/1.1 on asyncio (RFC 9112), as much as talking to APIs takes: a connection a call, kept and used again.

One thread with the general HTTP client finishes about a thousand small calls a second, since it goes over all
connections for each call; this does five times that. Where the environment names a proxy the general client
is used instead, see `_drivers.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from pictura import __version__
from pictura.errors import ProviderError
from pictura.providers._addresses import Target, server_of, target_of
from pictura.providers._calls import Call
from pictura.providers._connection import Connection, connected

if TYPE_CHECKING:
    import httpx2 as httpx

__all__ = ["AGENT", "Answer", "Pool"]

_HEAD = 64 << 10  # bytes of a status line and headers
_KEPT = 20.0  # seconds that an idle connection is kept; servers close theirs after 5 to 75
AGENT = f"pictura/{__version__}"


class Answer:
    """A reply whose headers are there and whose body is still to be read."""

    def __init__(self, pool: Pool, connection: Connection, call: Call, key: Target) -> None:
        self._pool, self._connection, self._call, self._key = pool, connection, call, key
        self.status = 0
        self.headers: dict[str, str] = {}
        self._left: int | None = 0  # bytes of the body or of the current chunk; None: until the end
        self._chunked = self._keep = False

    async def begin(self) -> None:
        """Read the headers. Interim answers (1xx) are passed over."""
        while True:
            head = await self._until(b"\r\n\r\n", _HEAD)
            lines = head.decode("latin-1").split("\r\n")
            version, _, rest = lines[0].partition(" ")
            code = rest[:3]
            if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdecimal()):
                raise self._broken("what is no HTTP")
            self.status, self.headers = int(code), {}
            for line in lines[1:]:
                name, _, value = line.partition(":")
                self.headers[name.lower()] = value.strip()
            if self.status >= 200:
                break
        length = self.headers.get("content-length")
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        closing = "close" in self.headers.get("connection", "").lower()
        self._keep = version == "HTTP/1.1" and not closing and (self._chunked or length is not None)
        if self.status in (204, 304):
            self._chunked, self._left = False, 0
        elif not self._chunked:
            if length is not None and not (length.isascii() and length.isdecimal()):
                raise self._broken("a length that is none")
            self._left = None if length is None else int(length)

    async def piece(self) -> bytes:
        """Some bytes of the body, b"" when it has ended."""
        if self._chunked and self._left == 0:
            await self._next_chunk()
        if self._left == 0:
            return b""
        buffer = self._connection.buffer
        if not buffer and not await self._connection.more(self._call):
            if self._left is None:
                return b""
            raise self._broken("only a part of its answer")
        count = len(buffer) if self._left is None else min(len(buffer), self._left)
        piece = bytes(buffer[:count])
        del buffer[:count]
        if self._left is not None:
            self._left -= count
            if self._left == 0 and self._chunked:
                await self._until(b"\r\n", 2)
        return piece

    def close(self) -> None:
        """Give the connection back if it is in a state to be used again, and end it if it is not."""
        if self._keep and self._left == 0 and not self._chunked:
            self._pool.keep(self._key, self._connection)
        else:
            self._connection.end()

    async def _next_chunk(self) -> None:
        size = (await self._until(b"\r\n", 1000)).partition(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError:
            raise self._broken("a chunk without a size") from None
        if self._left == 0:
            while await self._until(b"\r\n", _HEAD):  # trailers
                pass
            self._chunked = False

    async def _until(self, mark: bytes, most: int) -> bytes:
        """The bytes before `mark`, which is read too."""
        buffer = self._connection.buffer
        while (at := buffer.find(mark)) < 0:
            if len(buffer) > most:
                raise self._broken("what is no HTTP")
            if not await self._connection.more(self._call):
                raise self._broken("only a part of its answer" if buffer else "nothing")
        found = bytes(buffer[:at])
        del buffer[: at + len(mark)]
        return found

    def _broken(self, what: str) -> ProviderError:
        return ProviderError(f"no answer from {self._call.method} {self._call.place}: the server sent {what}")


class Pool:
    """The connections of one event loop."""

    def __init__(self, heard: Callable[[int, Mapping[str, str]], object] | None = None) -> None:
        """`heard` is called with the status and headers of each answer."""
        self._heard = heard
        self._idle: dict[Target, list[tuple[float, Connection]]] = {}
        self._general: httpx.AsyncClient | None = None

    def general(self) -> httpx.AsyncClient:
        """The general client, which knows the environment's proxies."""
        import httpx2 as httpx

        if self._general is None:
            self._general = httpx.AsyncClient(follow_redirects=False)
        return self._general

    async def open(self, call: Call) -> Answer:
        """Send a call and read the headers of its answer. ProviderError where there is none."""
        target = target_of(call.url, call.place)
        content = call.body or b""
        key = server_of(target)
        while True:
            connection, used = await self._connection(key, call)
            answer = Answer(self, connection, call, key)
            try:
                connection.write(_head(call, target, len(content)) + content)  # no variable: keys are in it
                await answer.begin()
                if self._heard is not None:
                    self._heard(answer.status, answer.headers)
                return answer
            except ProviderError:
                connection.end()
                # A server may close a connection that it has kept long enough; that says nothing of this. It
                # may have read the call before, though: what it would bill twice is for `retried` to decide.
                if not used or connection.heard or not connection.closed or not call.repeatable:
                    raise
            except BaseException:
                connection.end()
                raise

    def keep(self, key: Target, connection: Connection) -> None:
        if not connection.closed and not connection.buffer:
            self._idle.setdefault(key, []).append((monotonic(), connection))

    async def close(self) -> None:
        """End all connections that are not in use."""
        for kept in self._idle.values():
            for _, connection in kept:
                connection.end()
        self._idle.clear()
        if self._general is not None:
            await self._general.aclose()
            self._general = None
        await asyncio.sleep(0)  # lets the transports close

    async def _connection(self, key: Target, call: Call) -> tuple[Connection, bool]:
        kept = self._idle.get(key, [])
        while kept:
            since, connection = kept.pop()
            if not connection.closed and monotonic() - since < _KEPT:
                connection.heard = False
                return connection, True
            connection.end()
        return await connected(key, call), False


def _head(call: Call, target: Target, length: int) -> bytes:
    headers = {"host": target.host, "user-agent": AGENT, "accept": "*/*", "accept-encoding": "identity"}
    headers |= {name.lower(): value for name, value in call.headers.items()}
    if call.json is not None:
        headers.setdefault("content-type", "application/json")
    if length or call.method in ("POST", "PUT", "PATCH"):
        headers["content-length"] = str(length)
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if not lines.count("\r") == lines.count("\n") == len(headers):
        raise ProviderError(f"a header for {call.place} has a line end in it; check the key", again=False)
    try:
        return f"{call.method} {target.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise ProviderError(
            f"a header for {call.place} has letters that HTTP cannot carry; check the key", again=False
        ) from None
