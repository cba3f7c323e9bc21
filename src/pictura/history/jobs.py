"""A queue of pictures to make that outlives whoever makes them.

A job is several requests accepted together; each is a task. This is the side of those who submit jobs and
wait for them; `claims` is the side of the workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pictura.errors import InputError, NotFound, ParameterError, shown
from pictura.history.database import begin
from pictura.history.store import Entry, History, new_id, now
from pictura.history.tables import events, jobs, pictures, tasks
from pictura.request import Request

__all__ = [
    "ENDED", "Event", "Failed", "Job", "Jobs", "KeyConflict", "Step", "insert_job", "jobs_row", "settle",
    "tell",
]  # fmt: skip

ENDED = ("done", "failed", "cancelled")


class KeyConflict(InputError):
    """An idempotency key was used before with another body."""

    http_status = 409


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Task `index` of a job could not be done; `error` as a user may read it, `parameter` if it was one."""

    index: int
    error: str
    kind: str
    parameter: str | None = None


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
    prompt: str = ""  # of its first picture: what to call it by


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a job, in the order of `seq`: status, picture, failure."""

    seq: int
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a task is: `step` of `total`, None where that is not known."""

    job: str
    index: int
    step: int
    total: int | None


class Jobs:
    """The queue of a history. Every method may be called from any thread and process."""

    def __init__(self, history: History) -> None:
        self.history = history

    def submit(
        self,
        requests: Sequence[Request],
        *,
        owner: str = "",
        key: str | None = None,
        said: bytes | None = None,
    ) -> Job:
        """Accept a job: when this returns it will be made. With an idempotency `key` the first call's job.

        said: what the caller sent, where seeds were drawn since: the key is held against it instead of the
        requests. KeyConflict where `key` came with something else before.
        """
        if not requests:
            raise ParameterError("a job needs one request at least", parameter="requests")
        if said is None:
            said = "\n".join(request.to_json() for request in requests).encode()
        digest = hashlib.sha256(said).hexdigest()
        with begin(self.history.engine) as connection:
            try:
                with connection.begin_nested():
                    id = insert_job(connection, requests, digest=digest, owner=owner, key=key)
            except IntegrityError:
                known = select(jobs).where(jobs.c.owner == owner, jobs.c.idempotency_key == key)
                row = connection.execute(known).one()
                if row.body_sha256 != digest:
                    raise KeyConflict(
                        f"idempotency key {shown(key)} was used for other requests; take a new one"
                    ) from None
                id = row.id
            return self._job(connection, id)

    def knows(self, owner: str, key: str) -> bool:
        """Whether this owner has used this idempotency key."""
        known = select(jobs.c.seq).where(jobs.c.owner == owner, jobs.c.idempotency_key == key)
        with begin(self.history.engine, reading=True) as connection:
            return connection.execute(known).first() is not None

    def get(self, id: str) -> Job:
        """InputError where there is no such job."""
        with begin(self.history.engine, reading=True) as connection:
            return self._job(connection, id)

    def requests(self, id: str) -> tuple[Request, ...]:
        """What a job asks for, in order, as it was accepted; NotFound where there is no such job."""
        wanted = select(tasks.c.request).where(tasks.c.job_id == id).order_by(tasks.c.place)
        with begin(self.history.engine, reading=True) as connection:
            jobs_row(connection, id)
            return tuple(Request.from_json(text) for text in connection.execute(wanted).scalars())

    def cancel(self, id: str) -> Job:
        """Make no more of it; pictures that are finished are kept. Harmless where it has ended."""
        with begin(self.history.engine) as connection:
            row = jobs_row(connection, id, lock=True)
            if row.status not in ENDED:
                connection.execute(update(jobs).where(jobs.c.id == id).values(cancelled=True))
                waiting = and_(tasks.c.job_id == id, tasks.c.state.in_(("queued", "running")))
                connection.execute(
                    update(tasks).where(waiting).values(state="cancelled", fence=tasks.c.fence + 1)
                )
                settle(connection, id)
            return self._job(connection, id)

    def newest(self, *, owner: str | None = None, status: str | None = None, limit: int = 20) -> list[Job]:
        """The newest jobs first, of one owner or of all."""
        wanted = select(jobs.c.id).order_by(jobs.c.seq.desc()).limit(limit)
        if owner is not None:
            wanted = wanted.where(jobs.c.owner == owner)
        if status is not None:
            wanted = wanted.where(jobs.c.status == status)
        with begin(self.history.engine, reading=True) as connection:
            return [self._job(connection, id) for id in connection.execute(wanted).scalars().all()]

    # For whoever waits

    def events(self, id: str, after: int = 0) -> list[Event]:
        """What happened to a job since event `after`, in order."""
        return self.events_of({id: after})[id]

    def events_of(self, after: Mapping[str, int]) -> dict[str, list[Event]]:
        """What happened to each job since the event that stands beside it, in order."""
        found: dict[str, list[Event]] = {id: [] for id in after}
        if not after:
            return found
        since = min(after.values())
        wanted = select(events).where(events.c.job_id.in_(list(after)), events.c.seq > since)
        with begin(self.history.engine, reading=True) as connection:
            rows = connection.execute(wanted.order_by(events.c.seq)).all()
        for row in rows:
            if row.seq > after[row.job_id]:
                found[row.job_id].append(Event(seq=row.seq, kind=row.kind, data=json.loads(row.data)))
        return found

    def watch(self, id: str) -> None:
        """Somebody looks at this job: its worker is to tell previews."""
        with begin(self.history.engine) as connection:
            jobs_row(connection, id)
            connection.execute(update(jobs).where(jobs.c.id == id, ~jobs.c.watched).values(watched=True))

    def steps(self, ids: Collection[str]) -> list[Step]:
        """How far the unfinished tasks of these jobs are, those that have begun."""
        if not ids:
            return []
        columns = (tasks.c.job_id, tasks.c.place, tasks.c.step, tasks.c.steps)
        here = tasks.c.job_id.in_(list(ids)) & (tasks.c.state == "running") & tasks.c.step.is_not(None)
        with begin(self.history.engine, reading=True) as connection:
            rows = connection.execute(select(*columns).where(here)).all()
        return [Step(job=row.job_id, index=row.place, step=row.step, total=row.steps) for row in rows]

    def preview(self, step: Step) -> bytes | None:
        """A PNG of what a task looks like by now; None where there is none."""
        here = and_(tasks.c.job_id == step.job, tasks.c.place == step.index)
        with begin(self.history.engine, reading=True) as connection:
            found: bytes | None = connection.execute(select(tasks.c.preview).where(here)).scalar()
        return found

    def _job(self, connection: Connection, id: str) -> Job:
        row = jobs_row(connection, id)
        made = connection.execute(
            select(pictures).where(pictures.c.job_id == id).order_by(pictures.c.job_index)
        ).all()
        broken = select(tasks).where(tasks.c.job_id == id, tasks.c.state == "failed").order_by(tasks.c.place)
        first = select(tasks.c.request).where(tasks.c.job_id == id, tasks.c.place == 0)
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
            prompt=json.loads(connection.execute(first).scalar_one())["prompt"],
        )


def insert_job(
    connection: Connection, requests: Sequence[Request], *, digest: str, owner: str, key: str | None = None
) -> str:
    """The id of a new job that nobody has begun. digest: what its key is held against."""
    id = new_id()
    job = {"id": id, "owner": owner, "idempotency_key": key, "body_sha256": digest, "made_at": now()}
    job |= {"status": "queued", "cancelled": False, "total": len(requests)}
    connection.execute(insert(jobs).values(**job))
    rows = [
        {
            "job_id": id,
            "place": index,
            "model": request.model or "",
            "request": request.to_json(),
            "state": "queued",
            "fence": 0,
            "attempts": 0,
        }
        for index, request in enumerate(requests)
    ]
    connection.execute(insert(tasks), rows)
    tell(connection, id, "status", {"status": "queued"})
    return id


def settle(connection: Connection, id: str) -> None:
    """Give a job that has ended its last status. Its row is locked: two last tasks cannot miss each other."""
    count = select(tasks.c.state, func.count()).where(tasks.c.job_id == id).group_by(tasks.c.state)
    states = {state: number for state, number in connection.execute(count)}
    if states.get("queued") or states.get("running"):
        return
    status = "cancelled" if states.get("cancelled") else "done" if states.get("done") else "failed"
    connection.execute(update(jobs).where(jobs.c.id == id).values(status=status))
    tell(connection, id, "status", {"status": status})


def tell(connection: Connection, job: str, kind: str, data: dict[str, Any]) -> None:
    connection.execute(insert(events).values(job_id=job, kind=kind, data=json.dumps(data)))


def jobs_row(connection: Connection, id: str, *, lock: bool = False) -> Row[Any]:
    wanted = select(jobs).where(jobs.c.id == id)
    usable = isinstance(id, str) and len(id) == 32 and "\0" not in id
    row = connection.execute(wanted.with_for_update() if lock else wanted).first() if usable else None
    if row is None:
        raise NotFound(f"there is no job {shown(id)}; submit it first")
    return row
