"""OpenAI's Images API: what its bodies ask for, and its answers, whole or as a stream."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pictura.errors import ParameterError, PicturaError
from pictura.history import Entry
from pictura.history.jobs import Job
from pictura.request import Request
from pictura.server.answers import Call, copies, encoded
from pictura.server.errors import Late, body_of
from pictura.server.fields import Fields, common
from pictura.server.service import Service
from pictura.server.watching import Told

__all__ = ["Wanted", "events", "reply", "requests", "wanted"]

UNUSED = ("quality", "style", "background", "moderation", "input_fidelity")
FORMATS = ("png", "jpeg", "webp")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How the answer is to look. partial: previews on the way; action: generation or edit."""

    count: int
    as_url: bool
    format: str
    quality: int | None
    stream: bool
    partial: int
    ignored: tuple[str, ...]
    action: str = "generation"


def wanted(fields: Fields, most: int, action: str = "generation") -> Wanted:
    """ParameterError for what cannot be had. most: pictures of one call."""
    form = fields.choice("output_format", FORMATS, "png")
    quality = fields.whole("output_compression", 0, 100)
    return Wanted(
        count=fields.whole("n", 1, most) or 1,
        as_url=fields.choice("response_format", ("b64_json", "url"), "b64_json") == "url",
        format=form,
        quality=quality,
        stream=bool(fields.flag("stream")),
        partial=fields.whole("partial_images", 0, 3) or 0,
        ignored=tuple(name for name in UNUSED if fields.get(name) not in (None, "auto")),
        action=action,
    )


def requests(
    serving: Service, fields: Fields, wanted: Wanted, options: Mapping[str, Any] | None = None
) -> list[Request]:
    """A request for each picture. options: what came as files."""
    prompt = fields.text("prompt")
    if prompt is None:
        raise ParameterError("there is no prompt; give one (it may be empty)", parameter="prompt")
    given = common(fields)
    given["options"] = {**given["options"], **(options or {})}
    request = Request(prompt=prompt, size=fields.text("size"), model=fields.text("model"), **given)  # type: ignore[arg-type]  # a request reads "WxH" itself
    return copies(serving, request, wanted.count)


def reply(job: Job, wanted: Wanted, base: str) -> dict[str, Any]:
    """The body of an answer. base: the server's address as the caller wrote it, with a slash at its end."""
    data = [_item(entry, wanted, base) for entry in job.images]
    width, height = job.images[0].size
    return {
        "created": job.made_at // 1_000_000,
        "data": data,
        "output_format": wanted.format,
        "background": "opaque",
        "size": f"{width}x{height}",
        "usage": _usage(),
        **({"ignored": list(wanted.ignored)} if wanted.ignored else {}),
    }


async def events(call: Call, job: Job, wanted: Wanted) -> AsyncIterator[str]:
    """The lines of a streamed answer: previews, then each picture; an error where one fails."""
    watch, shown = call.serving.watch(job.id), dict[int, int]()
    made = 0
    try:
        async for told in watch:
            if told is None:
                yield ": keep-alive\n\n"
            elif told.kind == "preview":
                if _due(told, shown, wanted.partial):
                    yield _line(await call.serving.thread(_partial, told, shown, job, wanted))
            elif told.kind == "picture":
                entry = await call.serving.entry(told.data["id"])
                yield _line(
                    await call.serving.thread(_completed, entry, job, wanted, str(call.asked.base_url))
                )
                made += 1
            elif told.last or told.kind == "failure":
                break
        if made < job.total:
            await call.ended(job)
            raise Late("the server ends; ask again")
    except PicturaError as error:
        yield _line(body_of(call.asked.url.path, error, error.http_status))
    else:
        await call.answered(job)
    yield "data: [DONE]\n\n"


def _item(entry: Entry, wanted: Wanted, base: str) -> dict[str, Any]:
    known = {"seed": entry.request.seed, "id": entry.id}
    if not wanted.as_url:
        content = encoded(entry, wanted.format, wanted.quality)
        return {"b64_json": base64.b64encode(content).decode(), **known}
    compression = "" if wanted.quality is None else f"?quality={wanted.quality}"
    end = "png" if wanted.format == "png" else f"{wanted.format}{compression}"
    return {"url": f"{base}images/{entry.id}.{end}", **known}


def _due(told: Told, shown: dict[int, int], partial: int) -> bool:
    """Whether this preview is one of the `partial` ones of its picture, which are spread over its steps."""
    index, step, total = told.data["index"], told.data["step"], told.data["total"]
    sent = shown.get(index, 0)
    due = total is None or step / total >= (sent + 1) / (partial + 1)
    if sent >= partial or not due:
        return False
    shown[index] = sent + 1
    return True


def _partial(told: Told, shown: Mapping[int, int], job: Job, wanted: Wanted) -> dict[str, Any]:
    content = base64.b64decode(told.data["image"])
    if wanted.format != "png":
        file = io.BytesIO()
        quality = 80 if wanted.quality is None else wanted.quality
        Image.open(io.BytesIO(content)).convert("RGB").save(file, wanted.format.upper(), quality=quality)
        content = file.getvalue()
    index = told.data["index"]
    return {
        **_event("partial_image", content, job, wanted),
        "partial_image_index": shown[index] - 1,
        "index": index,
        "step": told.data["step"],
        "total": told.data["total"],
    }


def _completed(entry: Entry, job: Job, wanted: Wanted, base: str) -> dict[str, Any]:
    width, height = entry.size
    return {
        **_event("completed", encoded(entry, wanted.format, wanted.quality), job, wanted),
        "size": f"{width}x{height}",
        "usage": _usage(),
        "index": entry.index,
        "seed": entry.request.seed,
        "id": entry.id,
        "url": f"{base}images/{entry.id}.png",
    }


def _event(kind: str, content: bytes, job: Job, wanted: Wanted) -> dict[str, Any]:
    return {
        "type": f"image_{wanted.action}.{kind}",
        "b64_json": base64.b64encode(content).decode(),
        "created_at": job.made_at // 1_000_000,
        "background": "opaque",
        "quality": "auto",
        "size": "auto",
        "output_format": wanted.format,
    }


def _usage() -> dict[str, Any]:
    """Nothing is counted here."""
    details = {"text_tokens": 0, "image_tokens": 0}
    return {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "input_tokens_details": details}


def _line(data: Mapping[str, Any]) -> str:
    return (
        f"event: {data['type']}\ndata: {json.dumps(data)}\n\n"
        if "type" in data
        else f"data: {json.dumps(data)}\n\n"
    )
