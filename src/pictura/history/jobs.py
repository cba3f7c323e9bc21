"""A queue of pictures to make that outlives whoever makes them.

A job is several requests accepted together; each is a task. A worker *claims* tasks for a while (a lease),
extends the lease as long as it lives, and *finishes* or *fails* each. When a lease ends the task goes to
the next worker with a higher *fence*; a result with an older fence is refused, so that a worker which was
only slow cannot finish a task twice. A task's picture, its state, the job's status and the event that tells
of it are one transaction.

Leases are measured on a clock that does not jump: PostgreSQL's own, and for SQLite, where all processes are
on one machine, the time since its start (with its boot id: after a restart every lease is over).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from pictura.errors import InputError, ParameterError, PicturaError, shown
from pictura.history.database import begin
from pictura.history.store import Entry, History, insert_picture, new_id, now
from pictura.history.tables import events, jobs, pictures, tasks
from pictura.picture import Picture
from pictura.request import Request

__all__ = ["Event", "Failed", "Job", "Jobs", "KeyConflict", "Task"]

MAX_ATTEMPTS = 3  # a task that costs so many workers their lives is not given to a fourth
ENDED = ("done", "failed", "cancelled")


class KeyConflict(InputError):
    """An idempotency key was used before with another body."""

    http_status = 409


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Task `index` of a job could not be done; `error` as a user may read it."""

    index: int
    error: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """status: queued, running, done (all have ended, one at least with a picture), failed or cancelled."""

    id: str
    status: str
    made_at: int
    total: int
    images: tuple[Entry, ...]
    failures: tuple[Failed, ...]
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a worker has claimed. fence: proof that it is still its own."""

    job: str
    index: int
    request: Request
    fence: int
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job, in the order of `seq`: status, picture, failure."""

    seq: int
    kind: str
    data: dict[str, Any]


class Jobs:
    """The queue of a history. Every method may be called from any thread and process."""

    def __init__(self, history: History) -> None:
        self.history = history

    def submit(self, requests: Sequence[Request], *, owner: str = "", key: str | None = None) -> Job:
        """Accept a job: when this returns it will be made. With an idempotency `key` the first call's job.

        KeyConflict where `key` came with other requests before.
        """
        if not requests:
            raise ParameterError("a job needs one request at least", parameter="requests")
        bodies = [request.to_json() for request in requests]
        digest = hashlib.sha256("\n".join(bodies).encode()).hexdigest()
        with begin(self.history.engine) as connection:
            try:
                with connection.begin_nested():
                    id = self._insert(connection, requests, bodies, digest, owner, key)
            except IntegrityError:
                known = select(jobs).where(jobs.c.owner == owner, jobs.c.idempotency_key == key)
                row = connection.execute(known).one()
                if row.body_sha256 != digest:
                    raise KeyConflict(
                        f"idempotency key {shown(key)} was used for other requests; take a new one"
                    ) from None
                id = row.id
            return self._job(connection, id)

    def get(self, id: str) -> Job:
        """InputError where there is no such job."""
        with begin(self.history.engine, reading=True) as connection:
            return self._job(connection, id)

    def cancel(self, id: str) -> Job:
        """Make no more of it; pictures that are finished are kept. Harmless where it has ended."""
        with begin(self.history.engine) as connection:
            row = _locked(connection, id)
            if row.status not in ENDED:
                connection.execute(update(jobs).where(jobs.c.id == id).values(cancelled=True))
                waiting = and_(tasks.c.job_id == id, tasks.c.state.in_(("queued", "running")))
                connection.execute(
                    update(tasks).where(waiting).values(state="cancelled", fence=tasks.c.fence + 1)
                )
                _settle(connection, id)
            return self._job(connection, id)

    def waiting(self) -> int:
        """How many tasks nobody has begun."""
        with begin(self.history.engine, reading=True) as connection:
            wanted = select(func.count()).select_from(tasks).where(tasks.c.state == "queued")
            return int(connection.execute(wanted).scalar_one())

    # For workers

    def claim(
        self, worker: str, *, limit: int, lease: float, models: Iterable[str] | None = None
    ) -> list[Task]:
        """At most `limit` tasks, oldest first, of `models` (None: of any), for `lease` seconds."""
        with begin(self.history.engine) as connection:
            clock, time_ = _clock(connection)
            over = or_(tasks.c.lease_clock != clock, tasks.c.lease_until < time_)
            free = or_(tasks.c.state == "queued", and_(tasks.c.state == "running", over))
            wanted = select(tasks).where(free).order_by(tasks.c.seq).limit(limit)
            if models is not None:
                wanted = wanted.where(tasks.c.model.in_(list(models)))
            mine: list[Task] = []
            for row in connection.execute(wanted.with_for_update(skip_locked=True)).all():
                here = and_(tasks.c.job_id == row.job_id, tasks.c.place == row.place)
                if row.attempts >= MAX_ATTEMPTS:
                    told = f"its worker died {row.attempts} times while making it; try a smaller size"
                    connection.execute(update(tasks).where(here).values(fence=row.fence + 1))
                    self._failed(connection, row.job_id, row.place, told, "EngineError")
                    continue
                taken = {
                    "state": "running",
                    "worker": worker,
                    "lease_until": time_ + lease,
                    "lease_clock": clock,
                    "fence": row.fence + 1,
                    "attempts": row.attempts + 1,
                }
                connection.execute(update(tasks).where(here).values(**taken))
                request = Request.from_json(row.request)
                mine.append(
                    Task(
                        job=row.job_id,
                        index=row.place,
                        request=request,
                        fence=row.fence + 1,
                        attempts=row.attempts + 1,
                    )
                )
            for job in sorted({task.job for task in mine}):
                begun = and_(jobs.c.id == job, jobs.c.status == "queued")
                if connection.execute(update(jobs).where(begun).values(status="running")).rowcount:
                    _tell(connection, job, "status", {"status": "running"})
            return mine

    def extend(self, held: Iterable[Task], lease: float) -> list[Task]:
        """Keep `held` for `lease` more seconds; those that are no longer one's own, to be dropped."""
        lost: list[Task] = []
        with begin(self.history.engine) as connection:
            clock, time_ = _clock(connection)
            for task in sorted(held, key=lambda task: (task.job, task.index)):
                longer = update(tasks).where(_own(task)).values(lease_until=time_ + lease, lease_clock=clock)
                if not connection.execute(longer).rowcount:
                    lost.append(task)
        return lost

    def finish(self, task: Task, picture: Picture) -> Entry | None:
        """Keep the picture of a task and end it. None, and nothing kept, where it is no longer one's own."""
        history = self.history
        digest = history.blobs.put(picture.to_bytes(".png"), ".png")
        with begin(history.engine) as connection:
            _locked(connection, task.job)
            if not connection.execute(update(tasks).where(_own(task)).values(state="done")).rowcount:
                return None
            entry = history.entry(insert_picture(connection, picture, digest, task.job, task.index))
            data = {"id": entry.id, "index": task.index, "seed": entry.request.seed}
            _tell(connection, task.job, "picture", data)
            _settle(connection, task.job)
            return entry

    def fail(self, task: Task, error: PicturaError) -> bool:
        """End a task without a picture; False where it is no longer one's own."""
        with begin(self.history.engine) as connection:
            _locked(connection, task.job)
            if connection.execute(select(tasks.c.seq).where(_own(task))).first() is None:
                return False
            self._failed(connection, task.job, task.index, str(error), type(error).__name__)
            return True

    def give_back(self, held: Iterable[Task]) -> None:
        """Let others have tasks that were claimed and not made, at once: for an orderly end."""
        with begin(self.history.engine) as connection:
            for task in held:
                free = {"state": "queued", "attempts": task.attempts - 1, "worker": None}
                connection.execute(update(tasks).where(_own(task)).values(**free))

    # For whoever waits

    def events(self, id: str, after: int = 0) -> list[Event]:
        """What happened to a job since event `after`, in order."""
        wanted = select(events).where(events.c.job_id == id, events.c.seq > after).order_by(events.c.seq)
        with begin(self.history.engine, reading=True) as connection:
            rows = connection.execute(wanted).all()
        return [Event(seq=row.seq, kind=row.kind, data=json.loads(row.data)) for row in rows]

    def _insert(
        self,
        connection: Connection,
        requests: Sequence[Request],
        bodies: Sequence[str],
        digest: str,
        owner: str,
        key: str | None,
    ) -> str:
        id = new_id()
        job = {"id": id, "owner": owner, "idempotency_key": key, "body_sha256": digest, "made_at": now()}
        job |= {"status": "queued", "cancelled": False, "total": len(requests)}
        connection.execute(insert(jobs).values(**job))
        rows = [
            {
                "job_id": id,
                "place": index,
                "model": request.model or "",
                "request": body,
                "state": "queued",
                "fence": 0,
                "attempts": 0,
            }
            for index, (request, body) in enumerate(zip(requests, bodies, strict=True))
        ]
        connection.execute(insert(tasks), rows)
        _tell(connection, id, "status", {"status": "queued"})
        return id

    def _failed(self, connection: Connection, job: str, index: int, error: str, kind: str) -> None:
        here = and_(tasks.c.job_id == job, tasks.c.place == index)
        said = json.dumps({"error": error, "kind": kind})
        connection.execute(update(tasks).where(here).values(state="failed", error=said))
        _tell(connection, job, "failure", {"index": index, "error": error, "kind": kind})
        _settle(connection, job)

    def _job(self, connection: Connection, id: str) -> Job:
        row = _row(connection, id)
        made = connection.execute(
            select(pictures).where(pictures.c.job_id == id).order_by(pictures.c.job_index)
        ).all()
        broken = select(tasks).where(tasks.c.job_id == id, tasks.c.state == "failed").order_by(tasks.c.place)
        return Job(
            id=id,
            status=row.status,
            made_at=row.made_at,
            total=row.total,
            images=tuple(self.history.entry(picture) for picture in made),
            failures=tuple(
                Failed(index=task.place, **json.loads(task.error)) for task in connection.execute(broken)
            ),
            owner=row.owner,
        )


def _own(task: Task) -> Any:
    """The row of a claimed task, if nobody has taken it over."""
    return and_(
        tasks.c.job_id == task.job,
        tasks.c.place == task.index,
        tasks.c.fence == task.fence,
        tasks.c.state == "running",
    )


def _settle(connection: Connection, id: str) -> None:
    """Give a job that has ended its last status. Its row is locked: two last tasks cannot miss each other."""
    count = select(tasks.c.state, func.count()).where(tasks.c.job_id == id).group_by(tasks.c.state)
    states = {state: number for state, number in connection.execute(count)}
    if states.get("queued") or states.get("running"):
        return
    status = "cancelled" if states.get("cancelled") else "done" if states.get("done") else "failed"
    connection.execute(update(jobs).where(jobs.c.id == id).values(status=status))
    _tell(connection, id, "status", {"status": status})


def _tell(connection: Connection, job: str, kind: str, data: dict[str, Any]) -> None:
    connection.execute(insert(events).values(job_id=job, kind=kind, data=json.dumps(data)))


def _locked(connection: Connection, id: str) -> Row[Any]:
    return _row(connection, id, lock=True)


def _row(connection: Connection, id: str, *, lock: bool = False) -> Row[Any]:
    wanted = select(jobs).where(jobs.c.id == id)
    usable = isinstance(id, str) and len(id) == 32 and "\0" not in id
    row = connection.execute(wanted.with_for_update() if lock else wanted).first() if usable else None
    if row is None:
        raise InputError(f"there is no job {shown(id)}; submit it first")
    return row


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
