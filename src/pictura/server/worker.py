"""A worker: claims the tasks of one model, draws them together, keeps the pictures.

    python -m pictura.server.worker ID NAME PLACE URL FOLDER GRACE

One thread draws; another does all that waits for the database or the disk. Nothing that was claimed is lost
when the process dies: its leases end and others take over. It ends when its standard input is closed, which
also happens when whoever started it dies: it claims no more, gives what it has begun `GRACE` seconds to end
and gives the rest back.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from pictura.errors import EngineError, PicturaError
from pictura.history import History
from pictura.history.changes import Changes
from pictura.history.claims import Claims, Progress, Task
from pictura.history.database import DatabaseError
from pictura.picture import Picture, Step
from pictura.server import logs
from pictura.server.benches import Bench, Seen, open_bench
from pictura.server.lags import Lags
from pictura.server.outside import outward, told

__all__ = ["LEASE", "Worker", "main"]

LEASE = 10.0  # seconds
TOLD = 0.1  # seconds between two tellings of how far tasks are
SHOWN = 0.25  # and between two previews of one
BEAT = 1.0
IDLE = 0.004  # seconds between two looks for work, when there is none
BUSY = 0.03  # and when there is

_log = logging.getLogger(__name__)


@dataclass
class _Held:
    """A task that was begun, and what there is to tell of it."""

    task: Task
    seen: Seen | None = None
    shown: float = 0.0  # when there was a preview last


@dataclass
class _Counts:
    """Since the start; seconds are those in which something was drawn."""

    pictures: int = 0
    failures: int = 0
    steps: int = 0
    seconds: float = 0.0
    lags: Lags = field(default_factory=Lags)
    began: float = field(default_factory=time.monotonic)


class Worker:
    """One model and the tasks that were claimed for it. id: names it in the database; any text."""

    def __init__(self, history: History, model: str, bench: Bench, *, id: str, lease: float = LEASE) -> None:
        self.id, self.model = id, model
        self._claims, self._bench = Claims(history), bench
        self._changes = Changes(history.engine)
        self._lease = lease
        self._held: dict[int, _Held] = {}
        self._keys = itertools.count()
        self._counts = _Counts()
        self._keeping: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._unkept = 0  # tasks that are drawn and not yet in the history
        self._lock = threading.Lock()
        self._lost: list[Task] = []
        self._alone = False  # what is drawn now may have killed a worker: nothing beside it

    def run(self, stopped: Callable[[], bool], *, grace: float = 10.0) -> None:
        """Draw until `stopped`, then end in an orderly way within `grace` seconds."""
        keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        keeper.start()
        deadline, next_look, next_told, next_beat = None, 0.0, 0.0, 0.0
        try:
            while True:
                now = time.monotonic()
                if stopped() and deadline is None:
                    deadline = now + grace
                if deadline is not None and (now > deadline or not self._held):
                    return
                if now >= next_beat:
                    next_beat = now + BEAT
                    self._do(self._beat)
                if now >= next_told and self._held:
                    next_told = now + TOLD
                    self._do(self._tell)
                if deadline is None and now >= next_look:
                    self._look()
                    next_look = time.monotonic() + (BUSY if self._held else IDLE)
                self._drop_lost()
                if self._held:
                    self._draw()
                else:
                    time.sleep(IDLE / 2)
        finally:
            self._changes.close()
            self._keeping.put(None)
            keeper.join(grace + self._lease)
            back = self._tasks()
            self._patiently(lambda: self._claims.give_back(back))
            _log.info("ended after %d pictures; %d are given back", self._counts.pictures, len(back))
            self._patiently(lambda: self._claims.leave(self.id))

    def _look(self) -> None:
        """Claim what there is room for."""
        free = 0 if self._alone else self._bench.slots - len(self._held) - self._unkept
        idle = not self._held and not self._unkept
        self._alone = self._alone and not idle
        try:
            if free > 0 and self._changes.since() and self.model in self._claims.wanted():
                claimed = self._claims.claim(
                    self.id, limit=free, lease=self._lease, models=[self.model], idle=idle
                )
                self._alone = any(task.attempts > 1 for task in claimed)
                for task in claimed:
                    self._start(task)
        except DatabaseError as error:
            _log.warning("%s", error)
            time.sleep(0.5)

    def _start(self, task: Task) -> None:
        key = next(self._keys)
        try:
            self._bench.start(key, task.request)
        except PicturaError as error:
            self._fail(task, error)
        except Exception as error:  # a fault of ours must not take the neighbours with it
            _log.exception("a task could not be begun")
            wrapped = EngineError(f"the picture could not be begun ({type(error).__name__}: {error})")
            self._fail(task, wrapped)
        else:
            self._held[key] = _Held(task)

    def _draw(self) -> None:
        began = time.perf_counter()
        for seen in self._bench.step():
            held = self._held.get(seen.key)
            if held is None:
                continue
            if isinstance(seen.event, Step):
                held.seen = seen
                self._counts.steps += 1
                continue
            del self._held[seen.key]
            task, event = held.task, seen.event
            if isinstance(event, Picture):
                self._end(partial(self._finish, task, event))
            else:
                self._fail(task, event.error)
        self._counts.seconds += time.perf_counter() - began

    def _fail(self, task: Task, error: PicturaError) -> None:
        self._end(partial(self._claims.fail, task, told(error, task.request)), failed=True)

    def _finish(self, task: Task, picture: Picture) -> None:
        try:
            entry = self._claims.finish(task, picture, outward(picture.request))
            if entry is not None and task.asked_at is not None:
                self._counts.lags.add((entry.made_at - task.asked_at) / 1e6)
        except PicturaError as error:
            if isinstance(error, DatabaseError):
                raise
            # Its file cannot be written: others may have room, and whoever waits is to know.
            self._claims.fail(task, error)

    def _drop_lost(self) -> None:
        """Cancel what is no longer wanted or no longer ours."""
        with self._lock:
            lost, self._lost = self._lost, []
        for task in lost:
            for key, held in list(self._held.items()):
                if held.task is task:
                    self._bench.cancel(key)
                    del self._held[key]

    def _tasks(self) -> list[Task]:
        return [held.task for held in self._held.values()]

    # What waits for the database; done in order by one thread

    def _do(self, work: Callable[[], None]) -> None:
        if self._keeping.qsize() < 1000:
            self._keeping.put(work)

    def _end(self, work: Callable[[], object], *, failed: bool = False) -> None:
        """End a task for good; tried until the database answers: the lease decides whether it counts."""

        def ended() -> None:
            try:
                self._patiently(work)
            finally:
                with self._lock:
                    self._unkept -= 1

        self._counts.failures += failed
        self._counts.pictures += not failed
        with self._lock:
            self._unkept += 1
        self._keeping.put(ended)

    def _keep(self) -> None:
        while (work := self._keeping.get()) is not None:
            try:
                work()
            except DatabaseError as error:
                _log.warning("%s", error)
            except Exception:
                _log.exception("something could not be kept")

    def _patiently(self, work: Callable[[], object]) -> None:
        """Do it, again and again while the database is away, for as long as leases may last."""
        until = time.monotonic() + 6 * self._lease
        while True:
            try:
                work()
                return
            except DatabaseError as error:
                if time.monotonic() > until:
                    raise
                _log.warning("%s; trying again", error)
                time.sleep(0.2)

    def _tell(self) -> None:
        """Keep what we hold, tell how far it is, and learn what nobody wants any more."""
        held = list(self._held.values())
        looked = self._claims.watched({one.task.job for one in held if one.seen is not None})
        now = time.monotonic()
        told = [_progress(one, one.task.job in looked, now) for one in held]
        lost = self._claims.progress(told, self._lease)
        with self._lock:
            self._lost += lost

    def _beat(self) -> None:
        counts = self._counts
        rss = resident()
        stats = {
            "pictures": counts.pictures, "failures": counts.failures, "steps": counts.steps,
            "seconds": round(counts.seconds, 3), "held": len(self._held), "memory": rss,
            "lags": counts.lags.stats(), "age": round(time.monotonic() - counts.began, 3),
            **self._bench.counts(),
        }  # fmt: skip
        self._claims.beat(self.id, self.model, "ready", stats)


def resident() -> int:
    """Bytes of memory that this process has now; the most it ever had where that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _progress(held: _Held, wanted: bool, now: float) -> Progress:
    seen, task = held.seen, held.task
    if seen is None or not isinstance(seen.event, Step):
        return Progress(task=task, step=0, steps=None)
    preview = None
    if wanted and seen.look is not None and now >= held.shown + SHOWN:
        held.shown = now
        try:
            preview = _png(seen.look())
        except PicturaError:  # a step with values that are no numbers has no picture
            preview = None
    return Progress(task=task, step=seen.event.step, steps=seen.event.total, preview=preview)


def _png(image: Image.Image) -> bytes:
    """A small PNG: previews are looked at for a moment."""
    image.thumbnail((512, 512))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _beats(claims: Claims, id: str, model: str, over: threading.Event) -> None:
    """Tell that a model is being loaded, for as long as it takes."""
    while not over.wait(BEAT):
        try:
            claims.beat(id, model, "loading", {"memory": resident(), "age": 0})
        except DatabaseError as error:
            _log.warning("%s", error)


def serve(name: str, place: str, history: History, *, id: str, stopped: threading.Event, grace: float) -> int:
    """Load a model and draw until `stopped`; the exit status. Where it cannot be loaded its tasks fail."""
    claims, over = Claims(history), threading.Event()
    claims.beat(id, name, "loading", {"memory": resident(), "age": 0})
    beating = threading.Thread(target=_beats, args=(claims, id, name, over), daemon=True)
    beating.start()
    try:
        bench = open_bench(name, place)
        claims.describe(name, bench.describe())
    except PicturaError as error:
        _say({"error": str(error), "kind": type(error).__name__})
        claims.fail_waiting(name, error)
        claims.leave(id)
        return 3
    finally:
        over.set()
        beating.join()
    _say({"ready": name})
    Worker(history, name, bench, id=id).run(stopped.is_set, grace=grace)
    return 0


def _say(said: Mapping[str, str]) -> None:
    """A line to whoever started us, if that is still there."""
    with suppress(BrokenPipeError):
        print(json.dumps(said), flush=True)


def main(arguments: Iterable[str]) -> int:
    """See the module."""
    id, name, place, url, folder, grace = arguments
    stopped = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; whoever started us decides
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock would still be held at the end
            pass
        stopped.set()

    threading.Thread(target=watch, daemon=True).start()
    with History(url or None, folder) as history:
        return serve(name, place, history, id=id, stopped=stopped, grace=float(grace))


if __name__ == "__main__":
    logs.install(os.environ.get("PICTURA_LOG", "auto"), process=f"worker {sys.argv[2]}")
    status = main(sys.argv[1:])
    logging.shutdown()
    os._exit(status)  # all is kept; to take torch apart takes seconds on a busy machine
