"""What many jobs at once need around them: workers, a deadline, a thread with an event loop, a way out of it.

Thousands of jobs a second leave little for each, so what asyncio makes anew each time is kept here: a task
works at one job after another, a timer serves many deadlines, events leave a thread in bundles.
"""

from __future__ import annotations

import asyncio
import math
import os
import queue
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

__all__ = ["Deadline", "LoopThread", "Told", "Workers"]

T = TypeVar("T")
_BUNDLE = 0.002


class Deadline:
    """A block of the current task that takes longer than `seconds` ends with TimeoutError: `with deadline:`.

    The same as `asyncio.timeout`, but one timer serves many blocks: when it goes off before the last of them
    is due it is set again. `close` ends the timer.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = math.inf
        self._passed = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[Any] = task

    def __enter__(self) -> None:
        self._due = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._late)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._due = math.inf
        if self._passed:
            self._passed = False
            if self.task.uncancel() == 0 and kind is asyncio.CancelledError:
                raise TimeoutError from None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._due > self._loop.time():
            if self._due < math.inf:
                self._timer = self._loop.call_at(self._due, self._late)
        else:
            self._passed = True
            self.task.cancel()


class Workers(Generic[T]):
    """Jobs done by at most `most` tasks of a loop, in turn. `work(job, deadline)` raises nothing."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Callable[[T, Deadline], Awaitable[None]],
        most: int,
        seconds: float,
    ) -> None:
        self._loop, self._work, self._most, self._seconds = loop, work, most, seconds
        self._jobs: deque[T] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, jobs: Sequence[T]) -> None:
        """To be called in the loop."""
        self._jobs.extend(jobs)
        for _ in range(min(len(jobs), self._most - len(self._tasks))):
            self._tasks.add(self._loop.create_task(self._until_done()))

    async def end(self) -> None:
        """Give up what is under way and wait until it is."""
        self._jobs.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _until_done(self) -> None:
        deadline = Deadline(self._seconds)
        try:
            while self._jobs:
                await self._work(self._jobs.popleft(), deadline)
        finally:
            deadline.close()
            self._tasks.discard(deadline.task)  # here, since the next job may come before a callback does


class Told(Generic[T]):
    """Events on their way out of an event loop's thread: those of `_BUNDLE` seconds together, since each
    hand-over costs both threads their turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turn: list[T] = []
        self._last = -math.inf
        self._queue: queue.SimpleQueue[list[T]] = queue.SimpleQueue()
        self.here: deque[T] = deque()  # handed over and not yet taken

    def add(self, event: T) -> None:
        """To be called in the loop's thread."""
        if not self._turn:
            self._loop.call_at(self._last + _BUNDLE, self._hand_over)
        self._turn.append(event)

    def get(self) -> T:
        """The next event, as soon as there is one."""
        if not self.here:
            self.here.extend(self._queue.get())
        return self.here.popleft()

    def rest(self) -> list[T]:
        """What nobody has taken. To be called in the loop's thread, when that has ended at both sides."""
        while not self._queue.empty():
            self.here.extend(self._queue.get())
        return [*self.here, *self._turn]

    def _hand_over(self) -> None:
        self._queue.put(self._turn)
        self._turn, self._last = [], self._loop.time()


class LoopThread:
    """An event loop in a thread of its own; when it is stopped, `last` is run in it."""

    def __init__(self, last: Callable[[], Coroutine[object, object, object]]) -> None:
        self.loop, self._last = asyncio.new_event_loop(), last
        self.process = os.getpid()
        self.thread = threading.Thread(target=self._work, name="pictura-remote", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        if self.process == os.getpid() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            if threading.current_thread() is not self.thread:
                self.thread.join(1)

    def _work(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._last())
        finally:
            self.loop.close()
