"""One connection to a server: bytes in and out, with one reader, on asyncio."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache

from pictura.errors import ProviderError
from pictura.providers._addresses import Target, allowed
from pictura.providers._calls import Call

__all__ = ["Connection", "connected"]

_PIECE = 256 << 10  # bytes that are read ahead


class Connection(asyncio.Protocol):
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


async def connected(key: Target, call: Call) -> Connection:
    """A new connection; ProviderError where there is none, or where a private address is not allowed."""
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
                        Connection,
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


@cache
def _tls() -> ssl.SSLContext:
    import httpx2 as httpx

    return httpx.create_ssl_context()
