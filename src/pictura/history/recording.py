"""What Python and the command line draw, kept in the history while the next pictures are made.

A picture goes into the history on another thread, several in one commit, and the call that made it waits for
that at its end. What goes wrong there costs the entry and nothing else: the picture is handed over all the
same, one line is logged, and a database that has not answered is left alone for a while.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from pictura.errors import PicturaError
from pictura.picture import Event, Picture

if TYPE_CHECKING:
    from pictura.history.store import History

__all__ = ["Recorder", "arecorded", "own_history", "recorded"]

AHEAD = 64 << 20  # pixels that may wait to be kept
GROUP = 16 << 20  # pixels kept with one commit, where they are of more than one picture
MANY = 64  # pictures kept with one commit
PATIENCE = 5.0  # seconds in which nothing was kept, after which a call no longer waits
PAUSE = 30.0  # seconds in which a history that failed like that is not asked again

_log = logging.getLogger("pictura.history")
_silent: weakref.WeakKeyDictionary[History, float] = weakref.WeakKeyDictionary()  # until when


class recorded(Iterator[Event]):  # noqa: N801 (used like a function)
    """`events` unchanged, and each picture among them on its way into `history` (None: the user's own).

    When they have ended or are closed, the pictures are in the history.
    """

    def __init__(self, events: Iterator[Event], history: History | None = None) -> None:
        self._events, self._history = events, history
        self._recorder: Recorder | None = None

    def __next__(self) -> Event:
        try:
            event = next(self._events)
        except BaseException:
            self._settle()
            raise
        if self._recorder is None:  # something is being drawn: the database can be opened beside it
            self._recorder = Recorder(self._history)
        if isinstance(event, Picture):
            self._recorder.put(event)
        return event

    def close(self) -> None:
        """Cancel what is not finished; what is, is kept."""
        try:
            if hasattr(self._events, "close"):
                self._events.close()
        finally:
            self._settle()

    def _settle(self) -> None:
        if self._recorder is not None:
            self._recorder.settle()


async def arecorded(events: AsyncGenerator[Event], history: History | None = None) -> AsyncGenerator[Event]:
    """`recorded` for asyncio: the event loop never waits for a disk."""
    recorder = await asyncio.to_thread(Recorder, history)
    try:
        async with aclosing(events) as source:
            async for event in source:
                if isinstance(event, Picture) and not recorder.offer(event):
                    await asyncio.to_thread(recorder.put, event)
                yield event
    finally:
        await asyncio.to_thread(recorder.settle)


class Recorder:
    """Puts pictures into a history, on a thread that is there only while it has something to do."""

    def __init__(self, history: History | None = None) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Picture] = deque()
        self._given = self._done = self._pixels = 0
        self._working = False
        self._history = own_history() if history is None else history
        if not self._history.is_open and not _is_silent(self._history):
            self._work()

    def put(self, picture: Picture) -> None:
        """Take `picture` when there is room; give it up where that does not come."""
        if not self.offer(picture):
            self._wait(lambda: self._room(picture))
            self.offer(picture)

    def offer(self, picture: Picture) -> bool:
        """Take `picture`, or say that there is no room for it now."""
        with self._changed:
            if not self._room(picture):
                return False
            if _is_silent(self._history):
                return True
            self._waiting.append(picture)
            self._pixels += _pixels(picture)
            self._given += 1
        self._work()
        return True

    def settle(self) -> None:
        """Wait until all that was taken is kept or given up, or the history has hung for a while."""
        last = self._given
        self._wait(lambda: self._done >= last)

    def _room(self, picture: Picture) -> bool:
        return not self._waiting or self._pixels + _pixels(picture) <= AHEAD or _is_silent(self._history)

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            while not ready():
                if not self._changed.wait(PATIENCE):
                    _silent[self._history] = time.monotonic() + PAUSE
                    _tell(f"nothing could be kept for {PATIENCE:g} seconds")
                    return

    def _work(self) -> None:
        """See to it that a thread is at work."""
        with self._changed:
            if self._working:
                return
            self._working = True
        # No daemon: a process that ends waits for it.
        thread = threading.Thread(target=self._run, name="pictura-history")
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending and starts no more threads: here, then
            self._run()

    def _run(self) -> None:
        group: list[Picture] = []  # at first the history is opened
        while True:
            answers = _keep(self._history, group)
            with self._changed:
                if not answers:
                    _silent[self._history] = time.monotonic() + PAUSE
                    self._waiting.clear()
                    self._pixels, self._done = 0, self._given
                self._done += len(group) if answers else 0
                group = self._next()
                self._working = bool(group)
                self._changed.notify_all()
            if not group:
                return

    def _next(self) -> list[Picture]:
        """What is kept with the next commit, taken from what waits."""
        group: list[Picture] = []
        size = 0
        while self._waiting and len(group) < MANY:
            size += _pixels(self._waiting[0])
            if group and size > GROUP:
                break
            group.append(self._waiting.popleft())
        self._pixels -= sum(map(_pixels, group))
        return group


def _keep(history: History, group: Sequence[Picture]) -> bool:
    """Put `group` into the history; False where that does not answer. Raises nothing.

    What can be kept is kept: one by one where together they cannot be.
    """
    try:
        if not history.is_open:
            history.open()
    except Exception as error:
        _tell_error(error)
        return False
    try:
        if group:
            history.add_all(group)
    except Exception as error:
        if type(error).__name__ == "DatabaseError":
            _tell_error(error)
            return False
        if len(group) > 1:
            return all(_keep(history, [picture]) for picture in group)
        _tell_error(error)
    return True


def _tell_error(error: Exception) -> None:
    _tell(str(error) if isinstance(error, PicturaError) else f"{type(error).__name__}: {error}")


def _pixels(picture: Picture) -> int:
    return picture.image.width * picture.image.height


def _is_silent(history: History) -> bool:
    return time.monotonic() < _silent.get(history, 0.0)


def own_history() -> History:
    """The history that `PICTURA_HOME` and `PICTURA_DATABASE` name now, the same one each time."""
    return _opened(os.environ.get("PICTURA_HOME"), os.environ.get("PICTURA_DATABASE"))


@lru_cache(maxsize=4)
def _opened(home: str | None, database: str | None) -> History:
    from pictura.history.store import History

    return History()


@cache
def _tell(reason: str) -> None:
    """Say once why pictures are missing from the history."""
    _log.warning("pictures are not kept in the history: %s (PICTURA_HISTORY=off: keep none)", reason)
