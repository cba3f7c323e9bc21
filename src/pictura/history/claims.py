"""The workers' side of the queue: claim tasks, tell how far they are, finish or fail them.

A worker holds a task for a while, its lease, and extends it as long as it lives. When a lease ends the task
goes to the next worker with a higher *fence*; a result with an older fence is refused, so that a worker which
was only slow cannot finish a task twice. A task's picture, its state, the job's status and the event that
tells of it are one transaction.

Leases are measured on a clock that does not jump: PostgreSQL's own, and for SQLite, where all processes are
on one machine, the time since its start (with its boot id: after a restart every lease is over).
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, or_, select, text, update

from pictura.errors import EngineError, ParameterError, PicturaError
from pictura.history.database import begin
from pictura.history.jobs import insert_job, jobs_row, settle, tell
from pictura.history.store import Entry, History, insert_picture
from pictura.history.tables import jobs, models, tasks, workers
from pictura.picture import Picture
from pictura.request import Request

__all__ = ["Claims", "Progress", "Task", "Worker"]

MAX_ATTEMPTS = 3  # a task that costs so many workers their lives is not given to a fourth
SHARE = 4
GONE = 15.0  # seconds without a beat after which a worker is taken to be dead


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker has claimed. fence: proof that it is still its own."""

    job: str
    index: int
    request: Request
    fence: int
    attempts: int
    asked_at: int | None = None  # when its job was accepted, in microseconds since 1970


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a task is: step `step` of `steps` (None: not known), and a PNG of what is there, if wanted."""

    task: Task
    step: int
    steps: int | None
    preview: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker that told of itself lately. state: loading, ready or failed; stats: counts since its start."""

    id: str
    model: str
    state: str
    host: str
    pid: int
    stats: Mapping[str, Any]


_turn = tasks.c.seq + SHARE * tasks.c.place


class Claims:
    """What workers do with the queue of a history. Every method may be called from any thread and process."""

    def __init__(self, history: History) -> None:
        self.history = history

    def waiting(self, models: Iterable[str] | None = None) -> int:
        """How many tasks nobody has begun, of `models` (None: of all)."""
        wanted = select(func.count()).select_from(tasks).where(tasks.c.state == "queued")
        if models is not None:
            wanted = wanted.where(tasks.c.model.in_(list(models)))
        with begin(self.history.engine, reading=True) as connection:
            return int(connection.execute(wanted).scalar_one())

    def queue(self) -> dict[tuple[str, str], int]:
        """How many tasks have not ended, by model and state (queued, running)."""
        columns = (tasks.c.model, tasks.c.state)
        wanted = select(*columns, func.count()).where(tasks.c.state.in_(("queued", "running")))
        with begin(self.history.engine, reading=True) as connection:
            rows = connection.execute(wanted.group_by(*columns)).all()
        return {(model, state): int(count) for model, state, count in rows}

    def wanted(self) -> list[str]:
        """The models that tasks wait for: those nobody has begun, and those whose worker has died."""
        with begin(self.history.engine, reading=True) as connection:
            clock, time_ = _clock(connection)
            found = select(tasks.c.model).where(_free(clock, time_)).distinct()
            return sorted(connection.execute(found).scalars())

    def claim(
        self,
        worker: str,
        *,
        limit: int,
        lease: float,
        models: Iterable[str] | None = None,
        idle: bool = True,
    ) -> list[Task]:
        """At most `limit` tasks, the oldest first, of `models` (None: of any), for `lease` seconds.

        A task's turn comes `SHARE` later for each one of its job before it: small jobs pass large ones, and
        none waits for ever. A task whose worker died may have been why, so it is given out alone: to a
        worker that is `idle`, and nothing with it.
        """
        with begin(self.history.engine) as connection:
            clock, time_ = _clock(connection)
            columns = (tasks.c.job_id, tasks.c.place, tasks.c.request, tasks.c.fence, tasks.c.attempts)
            asked_at = select(jobs.c.made_at).where(jobs.c.id == tasks.c.job_id).scalar_subquery()
            wanted = (
                select(*columns, asked_at.label("asked_at"))
                .where(_free(clock, time_))
                .order_by(_turn)
                .limit(limit)
            )
            if models is not None:
                wanted = wanted.where(tasks.c.model.in_(list(models)))
            mine: list[Task] = []
            rows = connection.execute(wanted.with_for_update(skip_locked=True)).all()
            # Others lock a job before its tasks; to wait for one here could be to wait for each other.
            ids = select(jobs.c.id).where(jobs.c.id.in_({row.job_id for row in rows}))
            at_hand = set(connection.execute(ids.with_for_update(skip_locked=True)).scalars())
            for row in (row for row in rows if row.job_id in at_hand):
                here = and_(tasks.c.job_id == row.job_id, tasks.c.place == row.place)
                if row.attempts >= MAX_ATTEMPTS:
                    told = f"its worker died {row.attempts} times while making it; try a smaller size"
                    connection.execute(update(tasks).where(here).values(fence=row.fence + 1))
                    self._failed(connection, row.job_id, row.place, EngineError(told))
                    continue
                if row.attempts and (mine or not idle):
                    break
                taken = {
                    "state": "running",
                    "worker": worker,
                    "lease_until": time_ + lease,
                    "lease_clock": clock,
                    "fence": row.fence + 1,
                    "attempts": row.attempts + 1,
                }
                connection.execute(update(tasks).where(here).values(**taken))
                now = {"fence": row.fence + 1, "attempts": row.attempts + 1}
                said = Request.from_json(row.request)
                values = {"request": said, "asked_at": row.asked_at, **now}
                mine.append(Task(job=row.job_id, index=row.place, **values))
                if row.attempts:
                    break
            for job in sorted({task.job for task in mine}):
                begun = and_(jobs.c.id == job, jobs.c.status == "queued")
                if connection.execute(update(jobs).where(begun).values(status="running")).rowcount:
                    tell(connection, job, "status", {"status": "running"})
            return mine

    def take(self, worker: str, requests: Sequence[Request], *, lease: float, owner: str) -> list[Task]:
        """A new job that is one's own from the start: who makes pictures at once need not fear others."""
        with begin(self.history.engine) as connection:
            job = insert_job(connection, requests, digest="", owner=owner)
            clock, time_ = _clock(connection)
            taken = {"state": "running", "worker": worker, "fence": 1, "attempts": 1}
            taken |= {"lease_until": time_ + lease, "lease_clock": clock}
            connection.execute(update(tasks).where(tasks.c.job_id == job).values(**taken))
            connection.execute(update(jobs).where(jobs.c.id == job).values(status="running"))
            tell(connection, job, "status", {"status": "running"})
        asked = enumerate(requests)
        return [Task(job=job, index=index, request=said, fence=1, attempts=1) for index, said in asked]

    def extend(self, held: Iterable[Task], lease: float) -> list[Task]:
        """Keep `held` for `lease` more seconds; those that are no longer one's own, to be dropped."""
        return self.progress((Progress(task=task, step=0, steps=None) for task in held), lease)

    def progress(self, told: Iterable[Progress], lease: float) -> list[Task]:
        """`extend` that also tells how far tasks are (step 0 tells nothing)."""
        lost: list[Task] = []
        with begin(self.history.engine) as connection:
            clock, time_ = _clock(connection)
            for one in sorted(told, key=lambda one: (one.task.job, one.task.index)):
                values: dict[str, Any] = {"lease_until": time_ + lease, "lease_clock": clock}
                if one.step:
                    values |= {"step": one.step, "steps": one.steps, "preview": one.preview}
                if not connection.execute(update(tasks).where(_own(one.task)).values(**values)).rowcount:
                    lost.append(one.task)
        return lost

    def watched(self, ids: Iterable[str]) -> set[str]:
        """Those of these jobs that somebody looks at, so that previews are worth their while."""
        wanted = select(jobs.c.id).where(jobs.c.id.in_(list(ids)), jobs.c.watched)
        with begin(self.history.engine, reading=True) as connection:
            return set(connection.execute(wanted).scalars())

    def finish(self, task: Task, picture: Picture, told: Request | None = None) -> Entry | None:
        """Keep the picture of a task and end it. None, and nothing kept, where it is no longer one's own.

        told: the request that its file tells to whoever gets it, where that is not the picture's own.
        """
        history = self.history
        file = picture if told is None else picture.amended(request=told)
        digest = history.blobs.put(file.to_bytes(".png"), ".png")
        with begin(history.engine) as connection:
            jobs_row(connection, task.job, lock=True)
            if not connection.execute(
                update(tasks).where(_own(task)).values(state="done", preview=None)
            ).rowcount:
                return None
            entry = history.entry(insert_picture(connection, picture, digest, task.job, task.index))
            data = {"id": entry.id, "index": task.index, "seed": entry.request.seed}
            tell(connection, task.job, "picture", data)
            settle(connection, task.job)
            return entry

    def fail(self, task: Task, error: PicturaError) -> bool:
        """End a task without a picture; False where it is no longer one's own."""
        with begin(self.history.engine) as connection:
            jobs_row(connection, task.job, lock=True)
            if connection.execute(select(tasks.c.seq).where(_own(task))).first() is None:
                return False
            self._failed(connection, task.job, task.index, error)
            return True

    def give_back(self, held: Iterable[Task]) -> None:
        """Let others have tasks that were claimed and not made, at once: for an orderly end."""
        with begin(self.history.engine) as connection:
            for task in held:
                free = {"state": "queued", "attempts": task.attempts - 1, "worker": None}
                connection.execute(update(tasks).where(_own(task)).values(**free))

    def fail_waiting(self, model: str, error: PicturaError) -> int:
        """End every task of a model that cannot be loaded; how many they were."""
        with begin(self.history.engine) as connection:
            clock, time_ = _clock(connection)
            here = (tasks.c.model == model) & _free(clock, time_)
            wanted = select(tasks.c.job_id, tasks.c.place, tasks.c.fence).where(here)
            rows = connection.execute(wanted.order_by(tasks.c.job_id, tasks.c.place)).all()
            for row in rows:
                jobs_row(connection, row.job_id, lock=True)
                mine = and_(tasks.c.job_id == row.job_id, tasks.c.place == row.place)
                connection.execute(update(tasks).where(mine).values(fence=row.fence + 1))
                self._failed(connection, row.job_id, row.place, error)
            return len(rows)

    # Who is there

    def beat(self, id: str, model: str, state: str, stats: Mapping[str, Any]) -> None:
        """A worker tells that it lives, and what it has done since its start."""
        with begin(self.history.engine) as connection:
            clock, time_ = _clock(connection)
            values = {"model": model, "state": state, "host": socket.gethostname(), "pid": os.getpid()}
            values |= {"beat": time_, "clock": clock, "stats": json.dumps(stats)}
            if not connection.execute(update(workers).where(workers.c.id == id).values(**values)).rowcount:
                connection.execute(insert(workers).values(id=id, **values))
                over = or_(workers.c.clock != clock, workers.c.beat < time_ - 20 * GONE)
                connection.execute(delete(workers).where(over))

    def leave(self, id: str) -> None:
        """A worker has ended."""
        with begin(self.history.engine) as connection:
            connection.execute(delete(workers).where(workers.c.id == id))

    def bury(self, id: str) -> None:
        """A worker is known to be dead: others need not wait for its leases to end."""
        with begin(self.history.engine) as connection:
            mine = (tasks.c.worker == id) & (tasks.c.state == "running")
            connection.execute(update(tasks).where(mine).values(lease_until=0.0))
            connection.execute(delete(workers).where(workers.c.id == id))

    def workers(self) -> list[Worker]:
        """Those that told of themselves within `GONE` seconds."""
        with begin(self.history.engine, reading=True) as connection:
            clock, time_ = _clock(connection)
            alive = select(workers).where(workers.c.clock == clock, workers.c.beat >= time_ - GONE)
            rows = connection.execute(alive.order_by(workers.c.id)).all()
        return [
            Worker(
                id=row.id, model=row.model, state=row.state, host=row.host, pid=row.pid,
                stats=json.loads(row.stats),
            )
            for row in rows
        ]  # fmt: skip

    def describe(self, model: str, description: Mapping[str, Any]) -> None:
        """Keep what a model can do, for those who ask without loading it."""
        said = json.dumps(description)
        with begin(self.history.engine) as connection:
            here = update(models).where(models.c.name == model).values(description=said)
            if not connection.execute(here).rowcount:
                connection.execute(insert(models).values(name=model, description=said))

    def descriptions(self) -> dict[str, dict[str, Any]]:
        """What was kept, by model."""
        with begin(self.history.engine, reading=True) as connection:
            return {row.name: json.loads(row.description) for row in connection.execute(select(models))}

    def _failed(self, connection: Connection, job: str, index: int, error: PicturaError) -> None:
        here = and_(tasks.c.job_id == job, tasks.c.place == index)
        said = {"error": str(error), "kind": type(error).__name__}
        if isinstance(error, ParameterError):
            said["parameter"] = error.parameter
        ended = {"state": "failed", "error": json.dumps(said), "preview": None}
        connection.execute(update(tasks).where(here).values(**ended))
        tell(connection, job, "failure", {"index": index, **said})
        settle(connection, job)


def _own(task: Task) -> Any:
    """The row of a claimed task, if nobody has taken it over."""
    return and_(
        tasks.c.job_id == task.job,
        tasks.c.place == task.index,
        tasks.c.fence == task.fence,
        tasks.c.state == "running",
    )


def _free(clock: str, time_: float) -> Any:
    """Tasks that nobody has begun, or whose lease is over."""
    over = or_(tasks.c.lease_clock != clock, tasks.c.lease_until < time_)
    return or_(tasks.c.state == "queued", and_(tasks.c.state == "running", over))


def _clock(connection: Connection) -> tuple[str, float]:
    """The name of the clock that leases are measured on, and its time in seconds."""
    if connection.dialect.name == "postgresql":
        asked = text("SELECT extract(epoch FROM clock_timestamp())::float8")
        return "server", float(connection.execute(asked).scalar_one())
    return _boot(), time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@cache
def _boot() -> str:
    """Which start of this machine it is."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (
        OSError
    ):  # elsewhere than on Linux: leases outlive a restart of the machine at most by their length
        return "monotonic"
