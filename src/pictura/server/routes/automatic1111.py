"""/sdapi/v1: making pictures as AUTOMATIC1111's web interface does, watching and interrupting it.

https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends
from fastapi import Request as Asked
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from pictura.errors import Cancelled, FileError, ParameterError, PicturaError
from pictura.picture import infotext
from pictura.picture.metadata import metadata_of
from pictura.server import automatic, uploads
from pictura.server.answers import Call, copies, encoded
from pictura.server.automatic import Desk, Desks, Running
from pictura.server.bodies import json_object, parsed
from pictura.server.errors import answer
from pictura.server.fields import Fields
from pictura.server.guard import Caller
from pictura.server.routes import caller, service
from pictura.server.service import Service


class Timed(APIRoute):
    """Says how long it took, as the original does."""

    def get_route_handler(self) -> Callable[[Asked], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def timed(asked: Asked) -> Response:
            began = time.perf_counter()
            try:
                response = await inner(asked)
            except PicturaError as error:
                response = answer(asked.url.path, error)
            response.headers["x-process-time"] = f"{time.perf_counter() - began:.4f}"
            return response

        return timed


def desk(asked: Asked, calling: Annotated[Caller, Depends(caller)]) -> Desk:
    """What is remembered of the caller."""
    address = asked.client.host if asked.client else ""
    return cast(Desks, asked.app.state.desks).of(calling.name, address)


router = APIRouter(prefix="/sdapi/v1", tags=["automatic1111"], route_class=Timed)

Serving = Annotated[Service, Depends(service)]
Calling = Annotated[Caller, Depends(caller)]
At = Annotated[Desk, Depends(desk)]
PICTURES = ("init_images", "mask", "alwayson_scripts")  # of a body: what holds some


@router.post("/txt2img")
async def txt2img(asked: Asked, serving: Serving, calling: Calling, at: At) -> Response:
    """Make pictures from a prompt."""
    return await _made(asked, serving, calling, at, image=False)


@router.post("/img2img")
async def img2img(asked: Asked, serving: Serving, calling: Calling, at: At) -> Response:
    """Make pictures from a picture and a prompt."""
    return await _made(asked, serving, calling, at, image=True)


@router.get("/progress")
async def progress(serving: Serving, at: At, skip_current_image: bool = False) -> dict[str, Any]:
    """How far the caller's oldest unfinished call is, and what its picture looks like by now."""
    id, running = next(iter(at.running.items()), ("", Running()))
    if not id:
        return automatic.progress(None, running, [], None)
    if not skip_current_image and not running.watched:
        running.watched = True
        await serving.thread(serving.jobs.watch, id)
    job = await serving.job(id)
    steps = await serving.thread(serving.jobs.steps, {id})
    preview = None
    if steps and not skip_current_image:
        preview = await serving.thread(serving.jobs.preview, steps[0])
    return automatic.progress(job, running, steps, preview)


@router.post("/interrupt")
async def interrupt(serving: Serving, at: At) -> dict[str, Any]:
    """End the caller's calls; each answers with the pictures that are finished."""
    await _interrupted(serving, at)
    return {}


@router.post("/skip")
async def skip(serving: Serving, at: At) -> None:
    """The same as interrupt: the pictures of a call are drawn together, none after the other."""
    await _interrupted(serving, at)


@router.post("/png-info")
async def png_info(asked: Asked, serving: Serving) -> dict[str, Any]:
    """What a picture file says of how it was made."""
    content = uploads.picture_in((await json_object(asked)).get("image"), "image")
    try:
        found = await serving.thread(metadata_of, content)
    except FileError as error:
        raise ParameterError(str(error), parameter="image") from None
    text = found.parameters or ""
    return {"info": text, "items": {"parameters": text} if text else {}, "parameters": _pairs(text)}


async def _made(asked: Asked, serving: Service, calling: Caller, at: Desk, *, image: bool) -> Response:
    body = parsed(await asked.body())
    if image and not body.get("init_images"):
        raise ParameterError("Init image not found; give init_images", parameter="init_images")
    if not image:
        body.pop("init_images", None)
    fields = Fields({**body, "override_settings": at.settings | Fields(body).mapping("override_settings")})
    chosen = fields.mapping("override_settings").get("sd_model_checkpoint") or serving.settings.default
    model = automatic.chosen_model(chosen, serving.offered())
    details = await _details(serving, model)
    most = serving.settings.limits.images
    adapters = await serving.thread(serving.adapters) if fields.get("alwayson_scripts") else {}
    found = await serving.thread(automatic.read, fields, model, details, most, adapters)
    call = await Call.of(serving, asked, calling)
    job = await call.submit(copies(serving, found.request, found.count))
    running = at.running[job.id] = Running()
    try:
        job = await call.ended(job)
    except Cancelled:
        if not running.interrupted:
            raise
        job = await serving.job(job.id)
    finally:
        at.running.pop(job.id, None)
    contents = [await serving.thread(encoded, entry) for entry in job.images] if found.send else []
    return JSONResponse(
        {
            "images": [base64.b64encode(content).decode() for content in contents],
            "parameters": {name: value for name, value in body.items() if name not in PICTURES},
            "info": automatic.info(job, found, details.get("digest")),
        },
        background=await call.at_end(job),
    )


async def _details(serving: Service, model: str) -> Mapping[str, Any]:
    """What a model can do; loaded for that where nobody knows yet. Nothing where it cannot be loaded."""
    until = time.monotonic() + serving.settings.limits.wait
    while model not in (known := await serving.thread(serving.claims.descriptions)):
        states = serving.supervisor.states()
        if states.get(model) == "failed" or time.monotonic() > until:
            return {}
        if model not in states:
            serving.supervisor.want(model)
        await asyncio.sleep(0.05)
    return known[model]


async def _interrupted(serving: Service, at: Desk) -> None:
    for id, running in list(at.running.items()):
        running.interrupted = True
        await serving.cancel(id)


def _pairs(text: str) -> dict[str, str]:
    if not text:
        return {}
    prompt, negative, settings = infotext.parse(text)
    found = {"Prompt": prompt, "Negative prompt": negative or "", **settings}
    width, by, height = settings.get("Size", "").partition("x")
    return {**found, "Size-1": width, "Size-2": height} if by else found
