"""Waiting for jobs: everybody who waits is told from one look at the database, many times a second."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pictura.errors import PicturaError
from pictura.history.changes import Changes
from pictura.history.jobs import ENDED, Event, Jobs, Step

__all__ = ["Told", "Watching"]

LOOK = 0.004  # seconds
BEHIND = 50  # who has so much to read yet is told no more steps and previews, only what lasts
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What happened to a job. seq: of what is kept (status, picture, failure); steps and previews pass."""

    kind: str
    data: dict[str, Any]
    seq: int | None = None

    @cached_property
    def text(self) -> str:
        """As a server-sent event; the same for all who listen."""
        seq = "" if self.seq is None else f"id: {self.seq}\n"
        return f"{seq}event: {self.kind}\ndata: {json.dumps(self.data)}\n\n"

    @property
    def last(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self.kind == "status" and self.data.get("status") in ENDED


@dataclass(eq=False)
class _Watch:
    after: int
    previews: bool
    resumes: bool
    queue: asyncio.Queue[Told | None] = field(default_factory=asyncio.Queue)
    steps: dict[int, int] = field(default_factory=dict)


class Watching:
    """Belongs to one event loop. `url` gives the address of a picture by its id."""

    def __init__(self, jobs: Jobs, url: Callable[[str], str]) -> None:
        self._jobs, self._url = jobs, url
        self._watches: dict[str, list[_Watch]] = {}
        self._some = asyncio.Event()
        self._new = False  # somebody came who has not been told what was there before
        self.leaving = self.closing = False

    async def watch(
        self, id: str, after: int = 0, *, steps: bool = True, resumes: bool = False
    ) -> AsyncIterator[Told | None]:
        """What happens to a job since event `after`, until it has ended or the server ends.

        None now and then where nothing happens, so that whoever listens can see that the line is alive.
        steps: also steps and previews. resumes: whoever listens comes back, and is let go first.
        """
        if steps:
            await asyncio.to_thread(self._jobs.watch, id)
        if after and await asyncio.to_thread(self._over, id, after):
            return  # whoever reads to the end and asks again has missed nothing
        async with self._watched(_Watch(after, steps, resumes), id) as queue:
            while not self.closing and not (resumes and self.leaving):
                try:
                    told = await asyncio.wait_for(queue.get(), 15)
                except TimeoutError:
                    yield None
                    continue
                if told is None:
                    return
                yield told
                if told.last:
                    return

    async def run(self) -> None:
        """Look until cancelled."""
        with closing(Changes(self._jobs.history.engine)) as changes:
            while True:
                await self._some.wait()
                try:
                    if self._new or changes.since():  # microseconds: a look at a file in memory
                        self._new = False
                        await self._look()
                except PicturaError as error:
                    _log.warning("%s", error)
                    await asyncio.sleep(0.5)
                await asyncio.sleep(LOOK)

    def leave(self) -> None:
        """Let those go who resume when the server is back; others may still get their pictures."""
        self.leaving = True
        for watches in self._watches.values():
            for watch in watches:
                if watch.resumes:
                    watch.queue.put_nowait(None)

    def close(self) -> None:
        """Let everybody go; they ask again when the server is back."""
        self.closing = True
        for watches in self._watches.values():
            for watch in watches:
                watch.queue.put_nowait(None)

    @asynccontextmanager
    async def _watched(self, watch: _Watch, id: str) -> AsyncIterator[asyncio.Queue[Told | None]]:
        self._watches.setdefault(id, []).append(watch)
        self._some.set()
        self._new = True
        try:
            yield watch.queue
        finally:
            self._watches[id].remove(watch)
            if not self._watches[id]:
                del self._watches[id]
            if not self._watches:
                self._some.clear()

    async def _look(self) -> None:
        after = {id: min(watch.after for watch in watches) for id, watches in self._watches.items()}
        looking = {id for id, watches in self._watches.items() if any(watch.previews for watch in watches)}
        shown = {
            (id, index): step
            for id in looking
            for watch in self._watches[id]
            for index, step in watch.steps.items()
        }
        happened, steps = await asyncio.to_thread(self._read, after, looking, shown)
        for step, preview in steps:
            passing = _step(step, preview)
            for watch in self._watches.get(step.job, ()):
                if watch.previews and watch.steps.get(step.index, 0) < step.step:
                    watch.steps[step.index] = step.step
                    if watch.queue.qsize() < BEHIND:
                        for told in passing:
                            watch.queue.put_nowait(told)
        for id, events in happened.items():
            kept = list(map(self._kept, events))
            for watch in self._watches.get(id, ()):
                for event, told in zip(events, kept, strict=True):
                    if event.seq > watch.after:
                        watch.after = event.seq
                        watch.queue.put_nowait(told)

    def _over(self, id: str, after: int) -> bool:
        """Whether nothing happened to a job since event `after`, nor will."""
        ended = self._jobs.get(id).status in ENDED  # asked first: what happens until then is seen below
        return ended and not self._jobs.events_of({id: after}).get(id)

    def _read(
        self, after: dict[str, int], looking: set[str], shown: dict[tuple[str, int], int]
    ) -> tuple[dict[str, list[Event]], list[tuple[Step, bytes | None]]]:
        steps = [step for step in self._jobs.steps(looking) if shown.get((step.job, step.index)) != step.step]
        found = [(step, self._jobs.preview(step)) for step in steps]
        return self._jobs.events_of(after), found

    def _kept(self, event: Event) -> Told:
        data = {**event.data, "url": self._url(event.data["id"])} if event.kind == "picture" else event.data
        return Told(kind=event.kind, data=data, seq=event.seq)


def _step(step: Step, preview: bytes | None) -> list[Told]:
    data = {"index": step.index, "step": step.step, "total": step.total}
    told = [Told(kind="step", data=data)]
    if preview:
        told.append(Told(kind="preview", data={**data, "image": base64.b64encode(preview).decode()}))
    return told
