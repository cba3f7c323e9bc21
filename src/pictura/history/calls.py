"""Calls: jobs whose makers wait on the line for the answer, and may call again when the line breaks.

OpenAI's clients repeat a request that was not answered, with how often they have tried before and without an
idempotency key. A repeated call is given the job that was made for it: one of the same owner with the same
body that was not answered yet, or only just (nobody knows whether the answer arrived), and that no other
repeated call was given. So two equal requests at the same time, both repeated, keep their two jobs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, or_, select, update

from pictura.history.database import begin
from pictura.history.jobs import Job, Jobs, insert_job
from pictura.history.store import now
from pictura.history.tables import calls
from pictura.request import Request

__all__ = ["WINDOW", "Calls"]

WINDOW = 1800.0  # seconds for which an unanswered call is remembered
GRACE = 15.0  # and an answered one; a little longer than clients wait before they ask again


class Calls:
    """The calls of a history. Every method may be called from any thread and process."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs, self._history = jobs, jobs.history

    def submit(self, requests: Sequence[Request], *, owner: str, said: bytes, attempt: int) -> Job:
        """Accept a job, unless it is one that was accepted before. attempt: 0 for the first call."""
        digest = hashlib.sha256(said).hexdigest()
        with begin(self._history.engine) as connection:
            id = _made_before(connection, owner, digest, attempt) if attempt else None
            if id is None:
                id = insert_job(connection, requests, digest=digest, owner=owner)
                row = {"owner": owner, "body_sha256": digest, "attempts": attempt + 1, "made_at": now()}
                connection.execute(insert(calls).values(job_id=id, **row))
        return self._jobs.get(id)

    def answered(self, id: str, *, failed: bool = False) -> None:
        """The answer was sent. Forgets the calls of long ago, too.

        failed: it was an error, so that the call made again is to be tried anew.
        """
        over = (calls.c.made_at < _ago(WINDOW)) | (calls.c.answered_at < _ago(GRACE))
        if failed:
            over |= calls.c.job_id == id
        with begin(self._history.engine) as connection:
            connection.execute(delete(calls).where(over))
            connection.execute(update(calls).where(calls.c.job_id == id).values(answered_at=now()))

    def settled(self, *, owner: str, said: bytes) -> None:
        """Calls with this body that were answered need no more answers.

        For when a new one is refused: made again it is to be a job of its own.
        """
        digest = hashlib.sha256(said).hexdigest()
        same = (calls.c.owner == owner) & (calls.c.body_sha256 == digest) & calls.c.answered_at.is_not(None)
        with begin(self._history.engine) as connection:
            connection.execute(delete(calls).where(same))


def _made_before(connection: Connection, owner: str, digest: str, attempt: int) -> str | None:
    """The job of the call that now is made for the `attempt`th time again; None where there is none."""
    same = (calls.c.owner == owner) & (calls.c.body_sha256 == digest) & (calls.c.attempts <= attempt)
    fresh = (calls.c.made_at >= _ago(WINDOW)) & or_(
        calls.c.answered_at.is_(None), calls.c.answered_at >= _ago(GRACE)
    )
    # Some attempts may never have arrived here, so that it has been seen less often than it was made.
    order = (calls.c.answered_at.is_not(None), calls.c.attempts.desc(), calls.c.made_at)
    wanted = select(calls.c.job_id).where(same & fresh).order_by(*order).limit(1)
    id: str | None = connection.execute(wanted.with_for_update(skip_locked=True)).scalar()
    if id is not None:
        again = {"attempts": attempt + 1, "answered_at": None}
        connection.execute(update(calls).where(calls.c.job_id == id).values(**again))
    return id


def _ago(seconds: float) -> int:
    return now() - int(seconds * 1e6)
