"""/api/images: the history. Find pictures, know all that made one, rate it, make it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi import Request as Asked
from fastapi.responses import StreamingResponse
from pydantic import BeforeValidator

from pictura.errors import EngineError, ParameterError, did_you_mean, shown
from pictura.history import Entry
from pictura.history.exporting import zipped
from pictura.history.replaying import compared, sentences
from pictura.request import MAX_SEED, parse_size
from pictura.server.bodies import json_object
from pictura.server.guard import Caller
from pictura.server.outside import outward
from pictura.server.routes import caller, service
from pictura.server.service import Service

router = APIRouter(prefix="/api", tags=["images"])

Serving = Annotated[Service, Depends(service)]
Calling = Annotated[Caller, Depends(caller)]


def _no_number(given: Any) -> Any:
    """Pydantic takes numbers for seconds, or for milliseconds where they are large."""
    if isinstance(given, str) and "-" not in given[1:]:
        raise ValueError("give a date, such as 2026-11-21T12:00:00Z")
    return given


Moment = Annotated[datetime, BeforeValidator(_no_number)]
Text = Annotated[str | None, Query(max_length=1000)]


def filters(
    model: Text = None,
    sampler: Text = None,
    seed: Annotated[int | None, Query(ge=0, le=MAX_SEED)] = None,
    num_steps: Annotated[int | None, Query(ge=0, le=10**6)] = None,
    size: Annotated[str | None, Query(max_length=20, description="WIDTHxHEIGHT")] = None,
    min_stars: Annotated[int | None, Query(ge=1, le=5)] = None,
    max_stars: Annotated[int | None, Query(ge=1, le=5)] = None,
    rated: bool | None = None,
    since: Annotated[Moment | None, Query(description="ISO 8601; UTC where no zone is given")] = None,
    until: Annotated[Moment | None, Query(description="ISO 8601, exclusive")] = None,
    collection: Text = None,
    job: Annotated[str | None, Query(max_length=32)] = None,
) -> dict[str, Any]:
    """What pictures are looked for, beside words; what is left out does not matter."""
    given = {
        "model": model, "sampler": sampler, "seed": seed, "num_steps": num_steps,
        "size": None if size is None else parse_size(size), "min_stars": min_stars, "max_stars": max_stars,
        "rated": rated, "since": _microseconds(since), "until": _microseconds(until),
        "collection": collection, "job": job,
    }  # fmt: skip
    for name, value in given.items():
        if isinstance(value, str) and "\0" in value:
            raise ParameterError(f"{name} is {shown(value)}; give a text without NUL", parameter=name)
    return {name: value for name, value in given.items() if value is not None}


Filters = Annotated[dict[str, Any], Depends(filters)]
Words = Annotated[str, Query(max_length=1000, description="words of the prompt; the last may be a beginning")]


@router.get("/images")
async def search(
    serving: Serving,
    wanted: Filters,
    query: Words = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=40)] = None,
) -> dict[str, Any]:
    """The newest pictures that have all the words and fit the filters; `next` is the cursor of the rest."""
    page = await serving.thread(serving.history.search, query, limit=limit, cursor=cursor, **wanted)
    return {"items": [shown_image(entry, serving) for entry in page.entries], "next": page.next}


@router.get("/pages")
async def pages(
    serving: Serving,
    wanted: Filters,
    query: Words = "",
    every: Annotated[int, Query(ge=1, le=500)] = 50,
) -> dict[str, Any]:
    """How many pictures a search finds, and the cursors at which its pages of `every` begin."""
    found = await serving.thread(serving.history.pages, query, every=every, **wanted)
    return {"total": found.total, "cursors": list(found.cursors)}


@router.get("/images/{id}")
async def get(id: str, serving: Serving) -> dict[str, Any]:
    """Everything that made a picture, and the collections it is in."""
    return await _whole(await serving.entry(id), serving)


@router.patch("/images/{id}")
async def rate(id: str, asked: Asked, serving: Serving) -> dict[str, Any]:
    """Give it `stars` (1 to 5; 0 or null withdraws them) or a `note`; what is left out stays as it was."""
    body = _only(await json_object(asked), "stars", "note")
    note = body.get("note")
    if note is not None and not isinstance(note, str):
        raise ParameterError(f"note is {shown(note)}; give a text", parameter="note")
    stars = 0 if "stars" in body and body["stars"] is None else body.get("stars")
    entry = await serving.thread(serving.history.rate, id, stars=stars, note=note)
    return await _whole(entry, serving)


@router.post("/images/{id}/replay")
async def replay(id: str, serving: Serving, calling: Calling) -> dict[str, Any]:
    """Make it again from what is recorded and compare every pixel. The new picture is in the history too."""
    then = await serving.entry(id)
    old = await serving.thread(then.picture)  # now: the same pixels made again would mend a damaged file
    job = await serving.submit([outward(then.request)], owner=calling.name)
    done = await serving.ended(job.id, serving.settings.limits.wait)
    if not done.images:
        reason = done.failures[0].error if done.failures else f"the job is {done.status}"
        raise EngineError(f"the picture could not be made again: {reason}")
    now = done.images[0]
    found = await serving.thread(lambda: compared(old, now.picture()))
    return {
        "identical": found.identical,
        "differences": dict(found.differences),
        "sentences": sentences(found.differences),
        "image": shown_image(now, serving),
    }


@router.post("/choices", status_code=201)
async def choose(asked: Asked, serving: Serving) -> dict[str, str]:
    """Of two pictures `winner` is liked better than `loser`."""
    body = _only(await json_object(asked), "winner", "loser")
    winner, loser = body.get("winner"), body.get("loser")
    if not isinstance(winner, str) or not isinstance(loser, str):
        raise ParameterError("give the ids of two pictures, winner and loser", parameter="winner")
    await serving.thread(serving.history.choose, winner, loser)
    return {"winner": winner, "loser": loser}


@router.get("/collections")
async def collections(serving: Serving) -> dict[str, Any]:
    """Every collection and how many pictures it has."""
    found = await serving.thread(serving.history.collections)
    return {"items": [{"name": name, "count": count} for name, count in found.items()]}


@router.put("/collections/{name:path}/images/{id}")
async def collect(name: str, id: str, serving: Serving) -> dict[str, str]:
    """Put a picture into a collection, which is made where there is none."""
    await serving.thread(serving.history.collect, name, id)
    return {"name": name, "id": id}


@router.delete("/collections/{name:path}/images/{id}")
async def uncollect(name: str, id: str, serving: Serving) -> dict[str, str]:
    """Take a picture out of a collection; it stays in the history."""
    await serving.thread(serving.history.uncollect, name, id)
    return {"name": name, "id": id}


@router.get("/export")
async def export(serving: Serving, wanted: Filters, query: Words = "") -> StreamingResponse:
    """A zip with the pictures that a search finds and metadata.jsonl, as `datasets`' imagefolder reads it."""
    found = serving.history.walk(query, **wanted)
    parts: Iterator[bytes] = zipped(replace(entry, request=outward(entry.request)) for entry in found)
    head = {"content-disposition": 'attachment; filename="pictures.zip"'}
    return StreamingResponse(parts, media_type="application/zip", headers=head)


def shown_image(entry: Entry, serving: Service) -> dict[str, Any]:
    """A picture as clients see it."""
    details = entry.details
    made_at = datetime.fromtimestamp(entry.made_at / 1e6, UTC).isoformat(timespec="microseconds")
    return {
        "id": entry.id,
        "url": serving.url(entry.id),
        "thumbnail": f"/images/{entry.id}/thumbnail",
        "made_at": made_at.replace("+00:00", "Z"),
        "size": list(entry.size),
        "request": outward(entry.request).to_dict(),
        "model_digest": entry.model_digest,
        "stars": entry.stars,
        "note": entry.note,
        "job": entry.job,
        "index": entry.index,
        "notes": details.get("notes", []),
        "ignored": details.get("ignored", []),
        "timings": details.get("timings", {}),
        "version": details.get("version"),
        "sha256": entry.sha256,
    }


async def _whole(entry: Entry, serving: Service) -> dict[str, Any]:
    """A picture that is looked at by itself."""
    names = await serving.thread(serving.history.collections_of, entry.id)
    return {**shown_image(entry, serving), "collections": list(names)}


def _only(body: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    for name in body:
        if name not in names:
            raise ParameterError(
                f"field {shown(name)} is unknown; {did_you_mean(name, names)}", parameter=str(name)
            )
    return body


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1e6)
