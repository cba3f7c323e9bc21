"""How often each key may ask: buckets that fill evenly, one for requests and one for pictures.

They belong to one API process: several of them allow so many times as much.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pictura.errors import ParameterError
from pictura.server.errors import Busy
from pictura.server.keys import Key
from pictura.server.settings import Limits

__all__ = ["Bucket", "Listeners", "Rates"]

MINUTE = 60.0


@dataclass
class Bucket:
    """Holds `size` and gets as many in a minute; full at the start."""

    size: int
    left: float
    at: float

    def take(self, count: int, now: float) -> float:
        """Take `count`, or nothing: the seconds until there are so many, 0 where they were taken."""
        self.left = min(self.size, self.left + (now - self.at) * self.size / MINUTE)
        self.at = now
        if self.left >= count:
            self.left -= count
            return 0.0
        return (count - self.left) * MINUTE / self.size


@dataclass
class Listeners:
    """How many streams of events are open, and may be."""

    most: int
    open: int = 0


class Rates:
    """By the name of the key; who has none (this machine, without keys) may ask as often as they like."""

    def __init__(
        self, keys: Iterable[Key], limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._requests = _buckets({key.name: key.requests or limits.requests for key in keys}, clock())
        self._pictures = _buckets({key.name: key.pictures or limits.pictures for key in keys}, clock())

    def request(self, name: str) -> None:
        """Count a request; Busy where there were too many."""
        self._take(self._requests, name, 1, "requests")

    def pictures(self, name: str, count: int) -> None:
        """Count pictures; Busy where there were too many, ParameterError for more than are ever allowed."""
        bucket = self._pictures.get(name)
        if bucket is not None and count > bucket.size:
            raise ParameterError(
                f"these are {count} pictures; this key may ask for {bucket.size} in a minute, so send fewer "
                "at once",
                parameter="requests",
            )
        self._take(self._pictures, name, count, "pictures")

    def _take(self, buckets: dict[str, Bucket], name: str, count: int, what: str) -> None:
        bucket = buckets.get(name)
        if bucket is None:
            return
        with self._lock:
            seconds = bucket.take(count, self._clock())
        if seconds > 0:
            raise Busy(
                f"this key may ask for {bucket.size} {what} in a minute; ask again later",
                retry_after=math.ceil(seconds),
            )


def _buckets(sizes: dict[str, int | None], now: float) -> dict[str, Bucket]:
    return {name: Bucket(size, size, now) for name, size in sizes.items() if size is not None}
