"""For wire formats that know no jobs: submit, wait, and answer with the pictures or the first failure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from fastapi import Request as Asked
from starlette.background import BackgroundTask

from pictura import errors, presets
from pictura.errors import (
    Cancelled,
    EngineError,
    FileError,
    InputError,
    NotFound,
    ParameterError,
    PicturaError,
)
from pictura.history import Entry
from pictura.history.database import DatabaseError
from pictura.history.jobs import ENDED, Failed, Job
from pictura.request import Request, random_seed
from pictura.server.errors import Late
from pictura.server.guard import Caller
from pictura.server.service import SEEDS, Service

__all__ = ["Call", "copies", "encoded", "failure", "pictures"]

_log = logging.getLogger(__name__)

TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request on the line. said: what the client sent, by which it is known when it is sent again."""

    serving: Service
    asked: Asked
    owner: str
    said: bytes

    @classmethod
    async def of(cls, serving: Service, asked: Asked, calling: Caller, said: bytes | None = None) -> Call:
        """said: in place of the body, where that is another each time it is sent."""
        body = await asked.body() if said is None else said
        said = asked.url.path.rstrip("/").encode() + b"\n" + body
        return cls(serving=serving, asked=asked, owner=calling.name, said=said)

    async def submit(self, requests: list[Request]) -> Job:
        """The job of these requests, or the one that was made when the client asked before."""
        key = self.asked.headers.get("idempotency-key")
        return await self.serving.submit(
            requests, owner=self.owner, key=key, said=self.said, attempt=self.attempt
        )

    @property
    def attempt(self) -> int | None:
        """How often a client of OpenAI has sent this before; None for others, and where a key says it."""
        headers = self.asked.headers
        return None if "idempotency-key" in headers else _attempt(headers)

    async def ended(self, job: Job) -> Job:
        """The job with all its pictures; Late, Cancelled, or the error of its first failure."""
        try:
            return await _ended(self.serving, job)
        except Late:
            raise
        except PicturaError:
            await self.answered(job, failed=True)
            raise

    async def answered(self, job: Job, *, failed: bool = False) -> None:
        """The client has its answer; where it `failed` the same call is tried anew."""
        if self.attempt is None:
            return
        try:
            await self.serving.answered(job.id, failed=failed)
        except DatabaseError as error:  # it only means that the job could be given out once more
            _log.warning("%s", error)

    async def at_end(self, job: Job) -> BackgroundTask | None:
        """What is to be done when the answer has been sent; nothing where nobody is on the line any more."""
        if self.attempt is None or await self.asked.is_disconnected():
            return None
        return BackgroundTask(self.answered, job)


async def pictures(call: Call, requests: list[Request]) -> Job:
    """The finished job of `requests`. When the client hangs up it goes on and its pictures are kept."""
    return await call.ended(await call.submit(requests))


def failure(failed: Failed) -> PicturaError:
    """What went wrong in a worker, as an error of the same kind."""
    kind = getattr(errors, failed.kind, EngineError)
    if not (isinstance(kind, type) and issubclass(kind, PicturaError)):
        kind = EngineError
    if kind is ParameterError:
        return ParameterError(failed.error, parameter=failed.parameter or "request")
    if issubclass(kind, InputError) and kind is not NotFound:
        kind = InputError
    return kind(failed.error)


def copies(serving: Service, request: Request, count: int) -> list[Request]:
    """`count` requests with the seeds s, s + 1, ...; s is drawn where there is none."""
    if count == 1 or _seedless(serving, request):
        return [request] * count
    first = random_seed(SEEDS - count + 1) if request.seed is None else request.seed
    return [replace(request, seed=first + copy) for copy in range(count)]


def encoded(entry: Entry, kind: str = "png", quality: int | None = None) -> bytes:
    """A picture's file as png (as it is), jpeg or webp, with all that made it inside."""
    try:
        return entry.content() if kind == "png" else entry.picture().to_bytes(f".{kind}", quality)
    except FileError as error:
        if not entry.path.is_file():
            raise NotFound(
                "the file of this picture is gone; restore the history's images from a backup"
            ) from None
        raise error


async def _ended(serving: Service, job: Job) -> Job:
    done = await serving.ended(job.id, serving.settings.limits.wait)
    if done.status not in ENDED:
        raise Late(f"the picture is not ready yet; job {job.id} goes on, ask again")
    if done.failures:
        raise failure(done.failures[0])
    if len(done.images) < done.total:
        raise Cancelled(f"job {job.id} was cancelled; {len(done.images)} of {done.total} pictures were made")
    return done


def _attempt(headers: Mapping[str, str]) -> int | None:
    said = headers.get("x-stainless-retry-count", "")
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 4 else None


def _seedless(serving: Service, request: Request) -> bool:
    """Whether the model draws no seeds by itself, as remote ones do."""
    return (
        request.seed is None
        and presets.remote(serving.place(request.model or serving.settings.default)) is not None
    )
