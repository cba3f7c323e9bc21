"""Complete requests in, events out: a provider's generators on one event loop, many at once.

`adraw` runs in the caller's event loop. `draw` runs in a thread that the model keeps for it, so that the
connections stay open from call to call, and works inside a running loop (a notebook) too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from time import monotonic, perf_counter, time
from typing import Any

from pictura.errors import EngineError, PicturaError, PresetError, ProviderError
from pictura.inputs import Item, Model
from pictura.limits import Circuit, Gate
from pictura.options import Option
from pictura.picture import Event, Failure, Picture, Preview, Step
from pictura.providers import Provider, Reply, adrive, retry_after
from pictura.providers._http import Pool
from pictura.providers._surplus import Surplus, kept
from pictura.workers import Deadline, LoopThread, Told, Workers

__all__ = ["Drawing", "Elsewhere", "Remote"]

_TOTAL = 600.0  # seconds for a request, where the provider has no opinion
_PATIENCE = 60.0  # the longest pause that a service is granted
_CHUNK = 0.02  # seconds that reading ahead may take before what was read is begun

_log = logging.getLogger(__name__)

Job = list[Item]  # pictures that one request to the provider makes
Deliver = Callable[[Event | None], object]  # None: the job is done


class Remote:
    """A provider and what all calls on it share: connections, places, the circuit."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.concurrency: int = getattr(provider, "concurrency", 8)
        self._total: float = getattr(provider, "timeout", (0, 0, _TOTAL))[2]
        self._gate = Gate(self.concurrency, getattr(provider, "rate", None))
        self._circuit = Circuit()
        self._pools: dict[asyncio.AbstractEventLoop, tuple[Pool, int]] = {}
        self._thread: LoopThread | None = None
        self._pool: Pool | None = None  # the thread's
        self._lock = threading.Lock()
        self._most = sys.maxsize  # pictures of a request: 1 once the service has shown that it makes no more

    def model(self, name: str) -> Model:
        """What completing a request needs to know, for pictures to be recorded as by `name`."""
        provider = self.provider
        seeded = "seed" in provider.parameters and getattr(provider, "seeded", True)
        return Model(
            name=name,
            family=_Limits(provider),
            defaults={},
            seeds=getattr(provider, "max_seed", 2**32 - 1) if seeded else None,
            passes_on=getattr(provider, "passes_on", False),
        )

    def draw(self, items: Iterator[Item], *, together: int = 1, previews: bool = False) -> Drawing:
        """The events of complete requests, as they come. `together`: so many neighbours differ in their
        seeds alone."""
        return Drawing(self, items, together, previews)

    def drawn(
        self, items: Iterator[Item], *, together: int, window: int, previews: bool = False
    ) -> Generator[Event]:
        """Events as they come; a job's pictures as one is there. Closing it gives up what is not finished.

        window: jobs begun and not yet handed over, at most.
        """
        jobs = self._jobs(items, together)
        loop = self._background().loop
        told: Told[Event | None] = Told(loop)
        run = self._run(loop, told.add, previews)
        live, more = 0, True
        broken: Exception | None = None
        try:
            while more or live:
                begun: list[Job] = []
                while more and live < window:
                    try:
                        job = next(jobs, None)
                    except Exception as error:  # of an input, or of who lists them: finish what is begun
                        job, broken = None, error
                    if job is None:
                        more = False
                    else:
                        begun.append(job)
                        live += 1
                if begun:
                    loop.call_soon_threadsafe(run.begin, begun)
                full = live
                while live and (told.here or live == full):
                    event = told.get()
                    if event is None:
                        live -= 1
                        if full - live > window // 8:
                            break
                    else:
                        yield event
            if broken is not None:
                raise broken
        finally:
            ended = asyncio.run_coroutine_threadsafe(self._ended(run, loop, told.rest), loop)
            if threading.current_thread() is not self._background().thread:  # where garbage may be collected
                ended.result()

    async def adrawn(
        self, items: Iterator[Item], *, together: int, window: int, previews: bool = False
    ) -> AsyncGenerator[Event]:
        """`drawn` in the running event loop. Inputs that are read lazily are read in a thread."""
        told: deque[Event | None] = deque()
        woken = asyncio.Event()

        def deliver(event: Event | None) -> None:
            told.append(event)
            woken.set()

        jobs = self._jobs(items, together)
        at_hand = type(items).__name__ == "list_iterator"
        run = self._run(asyncio.get_running_loop(), deliver, previews)
        ahead: deque[Job] = deque()  # read and not begun: what ends makes room for one of these at once
        low = window // 4  # few at once, since a thread that computes holds this one up
        live, more = 0, True
        broken: Exception | None = None
        reading: asyncio.Task[tuple[list[Job], bool, Exception | None]] | None = None
        try:
            while more or live or ahead:
                if reading is not None and reading.done():
                    found, more, broken = reading.result()
                    ahead.extend(found)
                    reading = None
                while ahead and live < window:
                    run.begin([ahead.popleft()])
                    live += 1
                if more and reading is None and len(ahead) <= low:
                    if at_hand:
                        found, more, broken = _read(jobs, low + 1, 10.0)
                        ahead.extend(found)
                        continue
                    reading = asyncio.create_task(asyncio.to_thread(_read, jobs, low + 1, _CHUNK))
                    reading.add_done_callback(lambda _: woken.set())
                if told:
                    event = told.popleft()
                    if event is None:
                        live -= 1
                    else:
                        yield event
                elif live or reading is not None:
                    woken.clear()
                    await woken.wait()
            if broken is not None:
                raise broken
        finally:
            await self._ended(run, asyncio.get_running_loop(), lambda: told)

    def _jobs(self, items: Iterator[Item], together: int) -> Iterator[Job]:
        """Items in the groups that the provider makes with one request."""
        if together == 1:
            yield from ([item] for item in items)
            return
        most = getattr(self.provider, "per_call", None)
        while block := list(islice(items, together)):
            for _, same in groupby(block, lambda item: replace(item.request, seed=None)):
                job = list(same)
                size = 1 if most is None else most(job[0].request)
                for at in range(0, len(job), size):
                    yield job[at : at + size]

    def _run(self, loop: asyncio.AbstractEventLoop, deliver: Deliver, previews: bool) -> Workers[Job]:
        pool = self.enter(loop)
        return Workers(
            loop,
            lambda job, deadline: self.answer(job, pool, deadline, deliver, previews),
            self.concurrency,
            self._total,
        )

    async def _ended(
        self, run: Workers[Job], loop: asyncio.AbstractEventLoop, rest: Callable[[], Iterable[Event | None]]
    ) -> None:
        await run.end()
        if untaken := [event for event in rest() if isinstance(event, Picture)]:
            _log.warning("%s: %s", self.provider.name, await asyncio.to_thread(kept, untaken))
        await self.leave(loop)

    # Connections

    def enter(self, loop: asyncio.AbstractEventLoop) -> Pool:
        """The connections of an event loop, kept until as many have left as have entered."""
        with self._lock:
            if self._thread is not None and self._thread.loop is loop:
                assert self._pool is not None
                return self._pool
            pool, users = self._pools.get(loop) or (Pool(partial(_heard, self._gate)), 0)
            self._pools[loop] = pool, users + 1
            return pool

    async def leave(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._thread is not None and self._thread.loop is loop:
                return
            pool, users = self._pools[loop]
            if users > 1:
                self._pools[loop] = pool, users - 1
                return
            del self._pools[loop]
        await pool.close()

    def _background(self) -> LoopThread:
        with self._lock:
            if self._thread is None or self._thread.process != os.getpid():  # threads do not survive a fork
                self._pool = Pool(partial(_heard, self._gate))
                self._thread = LoopThread(self._pool.close)
                weakref.finalize(self, self._thread.stop)
            return self._thread

    # One request

    async def answer(
        self, job: Job, pool: Pool, deadline: Deadline, deliver: Deliver, previews: bool
    ) -> None:
        """Make a job's pictures. Each item gets a Picture or a Failure, then None is delivered.

        Some services refuse to make several at once, or make one all the same: then each is asked for by
        itself, in the next jobs too if that goes well.
        """
        waiting, most = list(job), self._most
        while waiting:
            group, waiting = waiting[:most], waiting[most:]
            left, error = await self._answered(group, pool, deadline, deliver, previews)
            refused = isinstance(error, ProviderError) and error.status in (400, 422)
            if refused and len(group) > 1 or left and error is None and len(left) == len(group) - 1:
                most, waiting = 1, left + waiting
                continue
            if not left and most == 1:
                self._most = 1
            failed, waiting = (left + waiting, []) if refused else (left, waiting)
            for item in failed:
                count = f"the service sent {len(group) - len(left)} pictures of {len(group)}"
                deliver(Failure(index=item.index, request=item.request, error=error or ProviderError(count)))
        deliver(None)

    async def _answered(
        self, job: Job, pool: Pool, deadline: Deadline, deliver: Deliver, previews: bool
    ) -> tuple[list[Item], PicturaError | None]:
        """Ask for a job's pictures together: the items that got nothing, and why if something is wrong."""
        open_items, surplus = dict(enumerate(job)), Surplus()
        started = perf_counter()

        def tell(event: Event) -> None:
            if isinstance(event, (Step, Preview)):
                if event.index in open_items and (previews or isinstance(event, Step)):
                    deliver(replace(event, index=open_items[event.index].index))
                return
            item = open_items.pop(event.index, None)
            if item is None:
                if event.index >= len(job) and isinstance(event, Picture):
                    if surplus.keep(event) and not open_items:  # no picture is left that could say it
                        _log.warning("%s: %s", self.provider.name, surplus.note)
                return
            if isinstance(event, Picture):
                timings = event.timings or {"total": perf_counter() - started}
                notes = (*event.notes, surplus.note) if surplus.note else event.notes
                deliver(event.amended(index=item.index, ignored=item.ignored, timings=timings, notes=notes))
            else:
                deliver(replace(event, index=item.index, request=item.request))

        error: PicturaError | None
        try:
            await self._gate.enter()
            try:
                made = await self._made(job, pool, deadline, tell, previews)
            finally:
                self._gate.leave()
            for picture in made:
                tell(picture)
            error = None
        except PicturaError as failed:
            error = failed
        except Exception as failed:  # a provider of someone else may fail in any way
            error = EngineError(f"the provider failed ({type(failed).__name__}: {failed})")
            error.__cause__ = failed
        return list(open_items.values()), error

    async def _made(
        self, job: Job, pool: Pool, deadline: Deadline, tell: Callable[[Event], object], previews: bool
    ) -> Sequence[Picture]:
        if (left := self._circuit.left()) > 0:
            raise ProviderError(
                f"{self.provider.name} was not asked, since it did not answer many times in a row; "
                f"it is tried again in {left:.0f} s"
            )
        more: dict[str, Any] = {"count": len(job)} if len(job) > 1 else {}
        if previews and getattr(self.provider, "previews", False):
            more["previews"] = True
        lost: deque[ProviderError] = deque(maxlen=1)
        try:
            with deadline:
                flow = self.provider.run(job[0].request, **more)
                made = await adrive(flow, pool, tell=tell, lost=lost.append)
        except TimeoutError:
            self._circuit.told(False)
            last = f" (lately: {lost[0]})" if lost else ""
            raise ProviderError(
                f"{self.provider.name} had no picture ready after {self._total:g} s in all{last}; "
                "raise timeout"
            ) from None
        except ProviderError as error:
            self._circuit.told(error.status is not None and error.status < 500)
            raise
        self._circuit.told(True)
        return made


class Drawing(Iterator[Event]):
    """Events of remote pictures: an iterator, and with `here` one for the running event loop instead."""

    def __init__(self, remote: Remote, items: Iterator[Item], together: int, previews: bool) -> None:
        window = remote.concurrency + remote.concurrency // 2 + 1  # a few wait at the gate
        self._asked: dict[str, Any] = {
            "items": items, "together": together, "window": window, "previews": previews
        }  # fmt: skip
        self._remote = remote
        self._events: Generator[Event] | None = None

    def __next__(self) -> Event:
        if self._events is None:
            self._events = self._remote.drawn(**self._asked)
        return next(self._events)

    def close(self) -> None:
        """Give up what is not finished."""
        if self._events is not None:
            self._events.close()

    def here(self) -> AsyncGenerator[Event]:
        return self._remote.adrawn(**self._asked)


class Elsewhere:
    """What a model cannot do whose weights are somewhere else."""

    _model: Model

    def _refuse(self, what: str) -> PicturaError:
        return PresetError(f"{self._model.name} is a remote model, {what}; load a local one for that")

    def compile(self, *_: Any, **__: Any) -> Any:
        raise self._refuse("which cannot be trained from here")

    fit = evaluate = compile

    def save_to_preset(self, *_: Any, **__: Any) -> Any:
        raise self._refuse("whose weights cannot be saved")

    @property
    def family(self) -> Any:
        raise self._refuse("whose networks are not here")

    backbone = preprocessor = family

    @property
    def digest(self) -> str | None:
        """Nobody here knows the weights."""
        return None

    def __reduce__(self) -> Any:
        raise PresetError(
            f"{self._model.name} is a remote model, which may hold a key, and no pickle does; "
            "call from_preset where it is used"
        )

    def __deepcopy__(self, memo: object) -> Any:
        return self

    def __copy__(self) -> Any:
        return self

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Tell what is known of the model."""
        print_fn(repr(self))


class _Limits:
    """What a provider says of parameters, with what it need not say."""

    def __init__(self, provider: Provider) -> None:
        self.parameters: frozenset[str] = provider.parameters
        self.options: Mapping[str, Option] = getattr(provider, "options", {})
        self.parameters |= self.options.keys()
        self.check = provider.check


def _heard(gate: Gate, status: int, headers: Mapping[str, str]) -> None:
    """A service that is asked too often says so to one request and means all."""
    if status == 429:
        seconds = retry_after(Reply(status, headers), time())
        if seconds is not None and seconds <= _PATIENCE:
            gate.pause(seconds)


def _read(jobs: Iterator[Job], most: int, seconds: float) -> tuple[list[Job], bool, Exception | None]:
    """(jobs, whether there may be more, why not): at most so many, and no longer than so after the first."""
    found: list[Job] = []
    until = monotonic() + seconds
    try:
        while len(found) < most and (not found or monotonic() < until):
            job = next(jobs, None)
            if job is None:
                return found, False, None
            found.append(job)
    except Exception as error:
        return found, False, error
    return found, True, None
