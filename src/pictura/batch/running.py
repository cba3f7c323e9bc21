"""A batch from its prompts to its outputs: begun or gone on with, drawn by an engine, kept by the keeper."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pictura.batch import local, outputs, report
from pictura.batch.drawn import Drawn, failed
from pictura.batch.filters import Filter
from pictura.batch.judge import Judge
from pictura.batch.keeper import Keeper
from pictura.batch.ledger import Ledger
from pictura.batch.plan import Item, Plan, checked
from pictura.batch.rows import Source
from pictura.batch.sources import open_source
from pictura.batch.store import Store
from pictura.discovery import unknown
from pictura.errors import Cancelled, FileError
from pictura.evaluation.scorers import Scorer
from pictura.inputs import whole
from pictura.request import random_seed

__all__ = ["Progress", "Report", "follow", "run"]

WINDOW = 16  # pictures worked on at once, unless said otherwise


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a batch is: pictures of `total` that are settled, and of this run `made` in `seconds`."""

    total: int
    kept: int
    dropped: int
    failed: int
    made: int
    seconds: float

    @property
    def settled(self) -> int:
        return self.kept + self.dropped + self.failed

    @property
    def rate(self) -> float:
        """Pictures a second in this run."""
        return self.made / self.seconds if self.seconds else 0.0

    @property
    def left(self) -> float | None:
        """Seconds until all is settled, at this rate; None while nobody can say."""
        return (self.total - self.settled) / self.rate if self.rate else None


@dataclass(frozen=True, kw_only=True)
class Report(Progress):
    """The end of a run. resumed: pictures that earlier runs had settled. failures: their file, if any."""

    out: Path
    resumed: int
    failures: Path | None


def run(prompts: object, out: str | os.PathLike[str], **settings: Any) -> Report:
    """Make a data set; settings as those of `follow`. Giving the same again goes on with what is not done."""
    steps = follow(prompts, out, **settings)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            done: Report = end.value
            return done


def follow(
    prompts: object,
    out: str | os.PathLike[str],
    *,
    model: Any = "scenes",
    seed: int | None = None,
    num_images: int = 1,
    num_steps: int | None = None,
    guidance_scale: float | None = None,
    size: tuple[int, int] | str | None = None,
    sampler: str | None = None,
    schedule: str | None = None,
    negative_prompt: str | None = None,
    strict: bool = True,
    best_of: int = 1,
    scorers: Sequence[Scorer | str] = (),
    filters: Sequence[Filter | str] = (),
    min_score: float | None = None,
    dedup: str | None = None,
    format: str = "folder",
    shard: int = 1000,
    column: str | None = None,
    split: str | None = None,
    retry_failed: bool = False,
    engine: str = "local",
    address: str | None = None,
    actors: int | None = None,
    batch_size: int = WINDOW,
    options: Mapping[str, Any] | None = None,
) -> Generator[Progress, None, Report]:
    """`run`, telling how far it is.

    prompts: see `open_source`. model: a preset, or a `TextToImage`. seed: of the first picture; by default a
    random one, which the folder remembers. num_images: for each row. Parameters are for rows that do not say
    otherwise themselves. best_of, scorers: make so many for each picture and keep the one that the first
    scorer likes best. filters: see `pictura.batch.filters`. dedup: "exact" or "perceptual[:BITS]"; the first
    of equals is kept. retry_failed: make failed pictures once more. engine: "local", or "ray" with the
    `address` of a cluster and a number of `actors`. batch_size: pictures worked on at once.

    ParameterError, FileError and PresetError before any work; FileError where the disk is full. A picture
    that cannot be made is listed in failures.jsonl and does not end the run.
    """
    started = time.perf_counter()
    judge = Judge(scorers, filters, min_score)
    wanted: dict[str, Any] = {
        "num_images": num_images,
        "parameters": {
            "num_steps": num_steps,
            "guidance_scale": guidance_scale,
            "size": size,
            "sampler": sampler,
            "schedule": schedule,
            "negative_prompt": negative_prompt,
            "options": dict(options or {}),
        },
        "strict": strict,
        "best_of": best_of,
        "scorers": tuple(judge.scorers),
        "filters": tuple(judge.filters),
        "min_score": min_score,
        "dedup": dedup,
        "format": format,
        "shard": shard,
    }
    settings = checked(wanted, seed=seed, formats=outputs.names())
    window = whole("batch_size", batch_size, 4096)
    source = open_source(prompts, column, split)
    with closing(Store(out)) as store:
        network = _model(model)
        before = store.before()
        same = before is not None and before.source == source.digest
        plan = Plan(
            source=source.digest,
            rows=before.rows if before is not None and same else source.count(),
            model=network.name,
            model_digest=network.digest,
            seed=_seed(seed, before),
            **settings,
        )
        store.claim(plan)
        ledger = Ledger(store.hidden / "ledger.sqlite")
        with closing(ledger):
            if retry_failed:
                ledger.try_again()
            work = _Work(source, store, ledger, plan, judge, window, started)
            if not ledger.count("finished"):
                yield from work.progress(work.drawn_by(_engine(engine, network, model, plan, window)))
                work.finish()
            return work.report()


class _Work:
    """One run on an open folder."""

    def __init__(
        self,
        source: Source,
        store: Store,
        ledger: Ledger,
        plan: Plan,
        judge: Judge,
        window: int,
        started: float,
    ) -> None:
        self._source, self._store, self._ledger, self._plan = source, store, ledger, plan
        self._keeper = Keeper(store, ledger, plan, judge)
        self._resumed = self._settled()
        self._window, self._started = window, started

    def drawn_by(self, engine: Any) -> Iterator[None]:
        """Draw what is not settled and keep it; yields now and then."""
        inbox = _Inbox(self._keeper, self._window)
        try:
            with closing(engine(self._items(inbox))) as drawings:
                for drawn in drawings:
                    inbox.put(drawn)
                    yield
            inbox.close()
        except KeyboardInterrupt:
            with suppress(FileError):
                inbox.close()
            raise Cancelled("interrupted; the same command goes on from here") from None
        finally:
            inbox.stop()

    def progress(self, steps: Iterator[None]) -> Iterator[Progress]:
        yield self._progress()
        for _ in steps:
            yield self._progress()

    def finish(self) -> None:
        """Everything is settled: write what belongs to the whole, and put the ledger in order."""
        self._keeper.finish()
        report.write(self._store, self._ledger, self._plan, self._source)
        self._store.sync()
        with self._ledger.commit():
            self._ledger.set_count("finished", 1)
        if not self._ledger.count("failed"):
            self._store.clean()
        self._ledger.compact()

    def report(self) -> Report:
        values = vars(self._progress())
        failures = self._store.out / report.FAILURES
        return Report(
            **values,
            out=self._store.out,
            resumed=self._resumed,
            failures=failures if failures.exists() else None,
        )

    def _items(self, inbox: _Inbox) -> Iterator[Item]:
        """The items to draw, in order. Those that need no model go to the inbox at once."""
        again = self._ledger.again()
        frontier, known = self._ledger.count("frontier"), self._keeper.known()
        wanted = set(again)
        first = min([frontier, *again[:1]])
        for row in self._source.rows(first // self._plan.num_images):
            for item in self._plan.items(row):
                if item.index in wanted or (item.index >= frontier and item.index not in known):
                    stored = self._keeper.stored(item) if self._store.going_on and item.candidates else None
                    if item.problem is not None:
                        inbox.put(failed(item, 0, item.problem))
                    elif stored is not None:
                        for drawn in stored:
                            inbox.put(drawn)
                    else:
                        yield item

    def _settled(self) -> int:
        return sum(self._ledger.count(name) for name in ("kept", "dropped", "failed"))

    def _progress(self) -> Progress:
        return Progress(
            total=self._plan.total,
            kept=self._ledger.count("kept"),
            dropped=self._ledger.count("dropped"),
            failed=self._ledger.count("failed"),
            made=self._settled() - self._resumed,
            seconds=time.perf_counter() - self._started,
        )


class _Inbox:
    """Between whoever draws and the keeper's thread: a bounded queue, so that memory stays flat.

    After an error of the keeper, `put` and `close` raise it.
    """

    def __init__(self, keeper: Keeper, limit: int) -> None:
        self._keeper, self._limit = keeper, limit
        self._queue: queue.Queue[Drawn | None] = queue.Queue(limit)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="pictura-keeper", daemon=True)
        self._thread.start()

    def put(self, drawn: Drawn) -> None:
        self._raise()
        self._queue.put(drawn)

    def close(self) -> None:
        """Wait until all is kept."""
        self.stop()
        self._raise()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        more = True
        while more:
            group = [self._queue.get()]
            while len(group) < self._limit and group[-1] is not None:
                try:
                    group.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            more = group[-1] is not None
            if self._error is None:  # after one, what still comes is only taken from the queue
                try:
                    self._keeper.keep([drawn for drawn in group if drawn is not None])
                except Exception as error:
                    self._error = error


def _model(model: Any) -> Any:
    """The model itself; of a name, loaded."""
    if not isinstance(model, (str, os.PathLike)):
        return model
    from pictura.task import TextToImage

    return TextToImage.from_preset(model)


def _engine(name: str, network: Any, model: Any, plan: Plan, window: int) -> Any:
    if name != "local":
        raise unknown("engine", name, ["local"])
    return lambda items: local.draw(network, items, plan, window)


def _seed(given: int | None, before: Plan | None) -> int:
    if given is not None:
        return given
    return random_seed() if before is None else before.seed
