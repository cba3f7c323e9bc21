"""How often a service may be asked: places for requests at once, a rate, pauses, and a circuit that opens.

All of it is shared by the calls on one model, whichever threads and event loops they come from.
"""

from __future__ import annotations

import asyncio
from collections import deque
from threading import Lock
from time import monotonic

__all__ = ["Circuit", "Gate"]


class Gate:
    """`places` requests at once, begun at most `rate` times a second, and none before a pause is over."""

    def __init__(self, places: int, rate: float | None = None) -> None:
        self._lock = Lock()
        self._free = places
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._apart = 0.0 if rate is None else 1 / rate
        self._next = 0.0

    async def enter(self) -> None:
        """Wait for a place. Each `enter` that returns needs a `leave`."""
        with self._lock:
            waiter = None
            if self._free > 0:
                self._free -= 1
            else:
                waiter = asyncio.get_running_loop().create_future()
                self._waiting.append(waiter)
        if waiter is not None:
            await waiter  # one that is cancelled passes its turn on, see `_turn`
        try:
            while (self._apart or self._next) and (left := self._reserved()) > 0:
                await asyncio.sleep(left)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Give the place to whoever waits longest."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                waiter = self._waiting.popleft()
            loop = waiter.get_loop()
            try:
                if loop is asyncio._get_running_loop():
                    loop.call_soon(self._turn, waiter)
                else:
                    loop.call_soon_threadsafe(self._turn, waiter)
                return
            except RuntimeError:  # the waiter's loop is closed
                continue

    def pause(self, seconds: float) -> None:
        """Begin nothing for so long: the service asked for it."""
        with self._lock:
            self._next = max(self._next, monotonic() + seconds)

    def _turn(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done():
            self.leave()
        else:
            waiter.set_result(None)

    def _reserved(self) -> float:
        """Seconds to wait before another try; 0 when one may begin, which is then counted."""
        with self._lock:
            now = monotonic()
            if self._next > now:
                return self._next - now
            self._next = now + self._apart if self._apart else 0.0
            return 0.0


class Circuit:
    """Open after `most` failures in a row, for `seconds`; then one request may try whether it closes."""

    def __init__(self, most: int = 20, seconds: float = 30.0) -> None:
        self._lock = Lock()
        self._most, self._seconds = most, seconds
        self._failed = 0
        self._until = 0.0

    def left(self) -> float:
        """Seconds until the next try is allowed; 0 where this request may go."""
        if self._failed < self._most:
            return 0.0
        with self._lock:
            now = monotonic()
            if now < self._until:
                return self._until - now
            self._until = now + self._seconds  # this one tries; the others go on waiting
            return 0.0

    def told(self, alive: bool) -> None:
        """Whether a request found the service alive. A refusal is a sign of life."""
        if alive and not self._failed:
            return
        with self._lock:
            self._failed = 0 if alive else self._failed + 1
            if self._failed == self._most or (not alive and self._failed > self._most):
                self._until = monotonic() + self._seconds
