"""HTTP as uvicorn speaks it, with a deadline for the head of a request.

uvicorn waits for ever for a head that comes a byte at a time, or not at all; a few thousand such connections
would keep everybody else out.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Protocol", "with_deadline"]


class Protocol(H11Protocol):
    """head: seconds from the first byte of a request, or from the connection, to the end of its head."""

    head = 10.0
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._due = self.loop.call_later(self.head, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._in_time()
        elif self._due is None:
            self._due = self.loop.call_later(self.head, self._give_up)

    def send_400_response(self, msg: str) -> None:
        """uvicorn's, told to whoever still answers the request: the line is closed."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer is under way
            self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _in_time(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _give_up(self) -> None:
        self._due = None
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.transport.close()


def with_deadline(seconds: float) -> type[Protocol]:
    """A protocol whose deadline is `seconds`."""
    return type("Protocol", (Protocol,), {"head": seconds})
