"""POST /models/NAME, and POST / for the default model: Hugging Face's inference, answered with a file.

https://huggingface.co/docs/inference-providers/tasks/text-to-image
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as Asked
from fastapi.responses import Response

from pictura import samplers
from pictura.attachments import recorded
from pictura.errors import ParameterError, shown
from pictura.history import Entry
from pictura.request import Request
from pictura.schedulers.classes import own_sampler
from pictura.server import uploads
from pictura.server.answers import TYPES, Call, encoded, pictures
from pictura.server.bodies import parsed
from pictura.server.fields import Fields, common
from pictura.server.guard import Caller
from pictura.server.routes import caller, service
from pictura.server.service import Service

router = APIRouter(tags=["huggingface"])

Serving = Annotated[Service, Depends(service)]
Calling = Annotated[Caller, Depends(caller)]

KNOWN = {
    "negative_prompt", "seed", "num_steps", "num_inference_steps", "steps", "guidance_scale", "sampler",
    "schedule", "options", "strength", "width", "height", "target_size", "scheduler", "prompt",
}  # fmt: skip
MAX_HEADER = 4000  # characters; clients refuse longer ones


@router.post("/models/{name:path}", response_class=Response)
async def named(name: str, asked: Asked, serving: Serving, calling: Calling) -> Response:
    """Make a picture with the model of this name."""
    return await _picture(name.rstrip("/"), asked, serving, calling)


@router.post("/", response_class=Response)
async def default(asked: Asked, serving: Serving, calling: Calling) -> Response:
    """Make a picture with the default model, or with the `model` that the body names."""
    return await _picture(None, asked, serving, calling)


async def _picture(name: str | None, asked: Asked, serving: Service, calling: Caller) -> Response:
    kind = _accepted(asked.headers.get("accept", "*/*"))
    call = await Call.of(serving, asked, calling)
    body = Fields(parsed(await asked.body()))
    request = await serving.thread(_request, body, name or body.text("model"))
    job = await pictures(call, [request])
    (entry,) = job.images
    content = await serving.thread(encoded, entry, kind)
    headers = _told(entry, serving.url(entry.id))
    return Response(content, media_type=TYPES[kind], headers=headers, background=await call.at_end(job))


def _request(body: Fields, model: str | None) -> Request:
    """What a body asks for. Parameters with other names are options, which the model knows or refuses.

    With a prompt among the parameters the inputs are a picture to start from, in base64.
    """
    inputs = body.text("inputs")
    if inputs is None:
        raise ParameterError("there are no inputs; give the prompt", parameter="inputs")
    parameters = body.mapping("parameters")
    fields = Fields(parameters)
    prompt = fields.text("prompt")
    given = common(fields)
    more = {name: value for name, value in parameters.items() if name not in KNOWN and value is not None}
    given["options"] = {**more, **given["options"]}
    if prompt is not None:
        given["options"]["image"] = recorded(uploads.picture_in(inputs, "inputs"), "inputs")
    if (scheduler := fields.text("scheduler")) is not None:
        given["sampler"] = _sampler(scheduler)
    size = _size(Fields({**parameters, **fields.mapping("target_size")}))
    return Request(prompt=inputs if prompt is None else prompt, model=model, size=size, **given)


def _size(fields: Fields) -> tuple[int, int] | None:
    width, height = fields.whole("width"), fields.whole("height")
    if width is None and height is None:
        return None
    if width is None or height is None:
        missing = "width" if width is None else "height"
        raise ParameterError(f"there is no {missing}; give width and height, or neither", parameter=missing)
    return width, height


def _sampler(scheduler: str) -> str:
    """Our sampler, by its own name or that of the class in diffusers."""
    return scheduler if scheduler in samplers.names() else own_sampler({"_class_name": scheduler})


def _accepted(header: str) -> str:
    """The first kind of file that `header` names and that there is."""
    for one in header.lower().split(","):
        kind = one.partition(";")[0].strip()
        if kind in ("image/*", "*/*", "application/json", ""):  # hubs of old asked for JSON and took pictures
            return "png"
        if kind in ("image/jpg", "image/pjpeg"):
            return "jpeg"
        for known, type_ in TYPES.items():
            if kind == type_:
                return known
    raise ParameterError(
        f"accept is {shown(header)}; pictures are {', '.join(TYPES.values())}", parameter="accept"
    )


def _told(entry: Entry, url: str) -> Mapping[str, str]:
    """What made the picture, beside what its file says itself."""
    said: dict[str, Any] = {
        "x-pictura-id": entry.id,
        "x-pictura-url": url,
        "x-pictura-seed": entry.request.seed,
    }
    parameters = entry.request.amended(prompt="", negative_prompt=None, options={}).to_json()
    said["x-pictura-parameters"] = parameters
    return {
        name: str(value) for name, value in said.items() if value is not None and len(str(value)) < MAX_HEADER
    }
