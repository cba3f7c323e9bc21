"""One run on a folder: what is not settled is drawn by an engine, and kept in a thread beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pictura.batch import report
from pictura.batch.drawn import Drawn, failed
from pictura.batch.judge import Judge
from pictura.batch.keeper import Keeper
from pictura.batch.ledger import Ledger
from pictura.batch.plan import Item, Plan
from pictura.batch.rows import Source
from pictura.batch.store import Store
from pictura.errors import Cancelled, EngineError, FileError

__all__ = ["Engine", "Progress", "Report", "Work"]

MANY = 16 << 20  # pixels: 48 MiB

Engine = Callable[[Iterator[Item]], Generator[Drawn, None, None]]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a batch is, in pictures. resumed: settled by earlier runs; made: by this one, in `seconds`."""

    total: int
    kept: int
    dropped: int
    failed: int
    resumed: int
    made: int
    seconds: float

    @property
    def settled(self) -> int:
        """Pictures of which it is known what has become of them."""
        return self.kept + self.dropped + self.failed

    @property
    def rate(self) -> float:
        """Pictures a second in this run."""
        return self.made / self.seconds if self.seconds else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until all is settled, at this rate; None while nobody can say."""
        done = self.settled - self.resumed
        return (self.total - self.settled) * self.seconds / done if done else None


@dataclass(frozen=True, kw_only=True)
class Report(Progress):
    """The end of a run. failures: the file that lists them, if there are any."""

    out: Path
    failures: Path | None


class Work:
    """One run on an open folder. waiting: how many pictures may wait for the keeper, see `Inbox`."""

    def __init__(
        self,
        source: Source,
        store: Store,
        ledger: Ledger,
        plan: Plan,
        judge: Judge,
        waiting: tuple[int, int],
        started: float,
        word: Callable[[Item], Item] = lambda item: item,
    ) -> None:
        self._source, self._store, self._ledger, self._plan = source, store, ledger, plan
        self._word = word
        self._keeper = Keeper(store, ledger, plan, judge)
        self._made_before = self._made()
        self._resumed = self._made_before + ledger.count("failed")
        self._waiting, self._started = waiting, started

    def drawn_by(self, engine: Engine) -> Iterator[None]:
        """Draw what is not settled and keep it; yields now and then."""
        inbox = Inbox(self._keeper, *self._waiting)
        try:
            with closing(engine(self._items(inbox))) as drawings:
                for drawn in drawings:
                    inbox.put(drawn)
                    yield
            inbox.close()
            if (left := self._plan.total - self._ledger.count("frontier")) > 0:
                raise EngineError(f"the engine left {left} pictures out; give the same command again")
        except KeyboardInterrupt:
            with suppress(FileError):
                inbox.close()
            raise Cancelled("interrupted; the same command goes on from here") from None
        finally:
            inbox.stop()
            self._keeper.close()

    def progress(self, steps: Iterator[None]) -> Iterator[Progress]:
        """How far the batch is, at first and after each of `steps`."""
        yield self._progress()
        for _ in steps:
            yield self._progress()

    def finish(self) -> None:
        """Everything is settled: write what belongs to the whole, and put the ledger in order."""
        self._keeper.finish()
        report.write(self._store, self._ledger, self._plan, self._source)
        self._store.sync()
        if not self._ledger.count("failed"):
            self._store.clean()
        self._ledger.finish()

    def report(self) -> Report:
        """How it ended."""
        values = vars(self._progress())
        failures = self._store.out / report.FAILURES
        return Report(
            **values,
            out=self._store.out,
            failures=failures if failures.exists() else None,
        )

    def _items(self, inbox: Inbox) -> Iterator[Item]:
        """The items to draw, in order. Those that need no model go to the inbox at once."""
        again = self._ledger.again()
        frontier, known = self._ledger.count("frontier"), self._keeper.known()
        wanted = set(again)
        first = min([frontier, *again[:1]])
        for row in self._source.rows(first // self._plan.num_images):
            for planned in self._plan.items(row):
                if planned.index in wanted or (planned.index >= frontier and planned.index not in known):
                    item = self._word(planned)
                    stored = self._keeper.stored(item) if self._store.going_on else []
                    if item.problem is not None:
                        inbox.put(failed(item, 0, item.problem))
                    for drawn in stored:
                        inbox.put(drawn)
                    if len(stored) < len(item.candidates):
                        yield replace(item, stored=frozenset(drawn.candidate for drawn in stored))

    def _made(self) -> int:
        return self._ledger.count("kept") + self._ledger.count("dropped")

    def _progress(self) -> Progress:
        return Progress(
            total=self._plan.total,
            kept=self._ledger.count("kept"),
            dropped=self._ledger.count("dropped"),
            failed=self._ledger.count("failed"),
            resumed=self._resumed,
            made=self._made() - self._made_before,
            seconds=time.perf_counter() - self._started,
        )


class Inbox:
    """Between whoever draws and the keeper's thread: what waits is bounded, so that memory stays flat.

    At most `most` wait, and of large pictures at most `few`. What has come while the keeper was at work
    it takes together. After an error of the keeper, `put` and `close` raise it.
    """

    def __init__(self, keeper: Keeper, few: int, most: int) -> None:
        self._keeper, self._few, self._most = keeper, few, most
        self._waiting: list[Drawn] = []
        self._pixels = 0  # of those that wait
        self._ended = False
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="pictura-keeper", daemon=True)
        self._thread.start()

    def put(self, drawn: Drawn) -> None:
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._raise()
            self._waiting.append(drawn)
            self._pixels += drawn.pixels
            self._changed.notify_all()

    def close(self) -> None:
        """Wait until all is kept."""
        self.stop()
        self._raise()

    def stop(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join()

    def _has_room(self) -> bool:
        count = len(self._waiting)
        return self._error is not None or count < (self._few if self._pixels > MANY else self._most)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while group := self._taken():
            try:
                self._keeper.keep(group)
            except Exception as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return

    def _taken(self) -> list[Drawn]:
        """All that waits; nothing once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended)
            group, self._waiting, self._pixels = self._waiting, [], 0
            self._changed.notify_all()
        return group
