"""HTTP/1.1 on asyncio (RFC 9112), as much as talking to APIs takes: a connection a call, kept and used again.

One thread with the general HTTP client finishes about a thousand small calls a second, since it goes over all
connections for each call; this does five times that. Where the environment names a proxy the general client
is used instead, see `_drivers.py`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from functools import cache
from time import monotonic
from typing import TYPE_CHECKING

from pictura import __version__
from pictura.errors import ProviderError
from pictura.providers._addresses import Target, allowed, target_of
from pictura.providers._calls import Call

if TYPE_CHECKING:
    import httpx2 as httpx

__all__ = ["AGENT", "Answer", "Pool"]

_HEAD = 64 << 10  # bytes of a status line and headers
_PIECE = 256 << 10  # bytes that are read ahead
_KEPT = 20.0  # seconds that an idle connection is kept; servers close theirs after 5 to 75
AGENT = f"pictura/{__version__}"


class Answer:
    """A reply whose headers are there and whose body is still to be read."""

    def __init__(self, pool: Pool, connection: _Connection, call: Call, key: Target) -> None:
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
        self._idle: dict[Target, list[tuple[float, _Connection]]] = {}
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
        key = target._replace(path="")
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

    def keep(self, key: Target, connection: _Connection) -> None:
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

    async def _connection(self, key: Target, call: Call) -> tuple[_Connection, bool]:
        kept = self._idle.get(key, [])
        while kept:
            since, connection = kept.pop()
            if not connection.closed and monotonic() - since < _KEPT:
                connection.heard = False
                return connection, True
            connection.end()
        return await _connected(key, call), False


class _Connection(asyncio.Protocol):
    """Bytes that came in and are not read yet, and one reader who may wait for more.

    One timer serves many waits: when it goes off before the last of them is due it is set again.
    """

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.closed = self.heard = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.heard = True
        self.buffer += data
        if len(self.buffer) > _PIECE and not self._paused:
            self._transport.pause_reading()
            self._paused = True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._over()
        self._wake()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def end(self) -> None:
        if not self._transport.is_closing():
            self._transport.abort()
        self._over()

    async def more(self, call: Call) -> bool:
        """Wait until more came in; False when nothing will. ProviderError after the call's read timeout."""
        if self.closed:
            return False
        before = len(self.buffer)
        self._waiter = self._loop.create_future()
        self._due = self._loop.time() + call.timeouts[1]
        if self._timer is None or self._timer.when() > self._due:
            self._set()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if len(self.buffer) == before and not self.closed:
            raise ProviderError(
                f"no answer from {call.method} {call.place} (ReadTimeout after {call.timeouts[1]:g} s); "
                "allow it more time or check the network",
                again=call.repeatable,
            )
        return len(self.buffer) > before

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._waiter is not None:
            self._set() if self._loop.time() < self._due else self._wake()

    def _over(self) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _connected(key: Target, call: Call) -> _Connection:
    loop = asyncio.get_running_loop()
    tls, name = (_tls(), key.name) if key.secure else (None, None)
    plain = call.public or key.name.replace(".", "").isdecimal() or ":" in key.name  # one address at a time
    eager = None if plain else 0.25  # seconds before a name's next address is tried too
    try:
        async with asyncio.timeout(call.timeouts[0]):
            hosts = await allowed(key.name, key.port, call.place) if call.public else [key.name]
            for at, host in enumerate(hosts):
                try:
                    _, connection = await loop.create_connection(
                        _Connection,
                        host,
                        key.port,
                        ssl=tls,
                        server_hostname=name,
                        happy_eyeballs_delay=eager,
                    )
                    return connection
                except OSError:
                    if at == len(hosts) - 1:
                        raise
    except (OSError, ValueError) as error:  # timeouts and TLS's errors are OSErrors
        kind = "ConnectTimeout" if isinstance(error, TimeoutError) else type(error).__name__
        raise ProviderError(
            f"no answer from {call.method} {call.place} ({kind}); check the address and the network"
        ) from None
    raise AssertionError("a name without an address is an OSError")


def _head(call: Call, target: Target, length: int) -> bytes:
    headers = {"host": target.host, "user-agent": AGENT, "accept": "*/*", "accept-encoding": "identity"}
    headers |= {name.lower(): value for name, value in call.headers.items()}
    if call.json is not None:
        headers.setdefault("content-type", "application/json")
    if length or call.method in ("POST", "PUT", "PATCH"):
        headers["content-length"] = str(length)
    values = "\0".join(headers.values())
    if "\r" in values or "\n" in values:
        raise ProviderError(f"a header for {call.place} has a line end in it; check the key", again=False)
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    try:
        return f"{call.method} {target.path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
    except UnicodeEncodeError:
        raise ProviderError(
            f"a header for {call.place} has letters that HTTP cannot carry; check the key", again=False
        ) from None


@cache
def _tls() -> ssl.SSLContext:
    import httpx2 as httpx

    return httpx.create_ssl_context()
