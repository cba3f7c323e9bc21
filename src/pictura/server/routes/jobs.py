"""/api/jobs: pictures to make, and what happens to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query
from fastapi import Request as Asked
from fastapi.responses import JSONResponse, StreamingResponse

from pictura.errors import ParameterError, shown
from pictura.history.jobs import Failed, Job
from pictura.inputs import whole
from pictura.request import MAX_SEED, Request, random_seed
from pictura.server.bodies import parsed
from pictura.server.fields import EXACT
from pictura.server.guard import Caller
from pictura.server.outside import outward
from pictura.server.routes import caller, service
from pictura.server.service import SEEDS, Service

router = APIRouter(prefix="/api/jobs", tags=["jobs"])

Serving = Annotated[Service, Depends(service)]
Calling = Annotated[Caller, Depends(caller)]


@router.post("", status_code=202)
async def submit(
    asked: Asked,
    serving: Serving,
    calling: Calling,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> JSONResponse:
    """Accept pictures to make. When this answers they are stored and will be made."""
    body = await asked.body()
    job = await serving.submit(_requests(parsed(body)), owner=calling.name, key=idempotency_key, said=body)
    return JSONResponse(shown_job(job, serving), 202, {"location": f"/api/jobs/{job.id}"})


@router.get("")
async def newest(
    serving: Serving,
    calling: Calling,
    status: Literal["queued", "running", "done", "failed", "cancelled"] | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """The caller's newest jobs first."""
    jobs = await serving.thread(serving.jobs.newest, owner=calling.name, status=status, limit=limit)
    return {"items": [shown_job(job, serving) for job in jobs]}


@router.get("/{id}")
async def get(id: str, serving: Serving) -> dict[str, Any]:
    """How a job stands, and what it asked for."""
    asked = await serving.thread(serving.jobs.requests, id)
    requests = [outward(request).to_dict() for request in asked]
    return {**shown_job(await serving.job(id), serving), "requests": requests}


@router.delete("/{id}")
async def cancel(id: str, serving: Serving) -> dict[str, Any]:
    """Make no more of it. Finished pictures are kept."""
    return shown_job(await serving.cancel(id), serving)


@router.get("/{id}/events")
async def events(
    id: str,
    serving: Serving,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[int, Query(ge=0, le=MAX_SEED)] = 0,
) -> StreamingResponse:
    """Server-sent events: status, step, preview, picture, failure. Last-Event-ID resumes."""
    await serving.job(id)
    if last_event_id and last_event_id.isascii() and last_event_id.isdecimal():
        after = min(int(last_event_id[:19]), MAX_SEED)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(serving, id, after), media_type="text/event-stream", headers=headers)


async def _stream(serving: Service, id: str, after: int) -> AsyncIterator[str]:
    async for told in serving.watch(id, after, resumes=True):
        yield ": keep-alive\n\n" if told is None else told.text


def _shown_failure(failed: Failed) -> dict[str, Any]:
    said = {"index": failed.index, "error": failed.error, "kind": failed.kind}
    return said if failed.parameter is None else {**said, "parameter": failed.parameter}


def shown_job(job: Job, serving: Service) -> dict[str, Any]:
    """A job as clients see it."""
    return {
        "id": job.id,
        "status": job.status,
        "total": job.total,
        "prompt": job.prompt,
        "made_at": job.made_at,
        "images": [
            {"id": e.id, "index": e.index, "seed": e.request.seed, "url": serving.url(e.id)}
            for e in job.images
        ],
        "failures": [_shown_failure(failed) for failed in job.failures],
    }


def _requests(body: Mapping[str, Any]) -> list[Request]:
    """The requests of a body, one for each picture."""
    unknown = sorted(set(body) - {"requests"})
    given = body.get("requests")
    if unknown or not isinstance(given, list) or not given:
        raise ParameterError(
            'the body is to be {"requests": [{"prompt": ...}, ...]}'
            + (f"; it has the unknown field {shown(unknown[0])}" if unknown else ""),
            parameter=unknown[0] if unknown else "requests",
        )
    return [request for one in given for request in _copies(one)]


def _copies(given: object) -> list[Request]:
    """num_images=k stands for k requests with seeds s, s + 1, ..."""
    if not isinstance(given, dict):
        raise ParameterError(f"requests has {shown(given)}; each is an object", parameter="requests")
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(size := given.get("size"), list):
        given["size"] = tuple(map(_integral, size))
    given |= {name: _integral(given[name]) for name in ("seed", "num_steps", "num_images") if name in given}
    count = whole("num_images", given.pop("num_images", 1), 1000)
    request = Request.from_dict(given)
    if count == 1:
        return [request]
    first = random_seed(SEEDS - count + 1) if request.seed is None else request.seed
    return [replace(request, seed=first + copy) for copy in range(count)]


def _integral(value: object) -> object:
    """7 for 7.0: some languages have one kind of number. Larger floats are not exactly what was meant."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) <= EXACT
    return int(value) if whole else value  # type: ignore[call-overload]  # a float
