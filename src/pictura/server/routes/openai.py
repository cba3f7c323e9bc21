"""/v1: OpenAI's Images API and models; /openai/deployments: the same as Azure has it.

https://platform.openai.com/docs/api-reference/images
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as Asked
from fastapi.responses import JSONResponse, Response, StreamingResponse

from pictura.errors import ParameterError
from pictura.server import forms, uploads
from pictura.server import openai_images as images
from pictura.server.answers import Call
from pictura.server.bodies import parsed
from pictura.server.fields import Fields
from pictura.server.guard import Caller
from pictura.server.routes import caller, service
from pictura.server.service import Service

router = APIRouter(tags=["openai"])

Serving = Annotated[Service, Depends(service)]
Calling = Annotated[Caller, Depends(caller)]
STARTED = int(time.time())


@router.post("/v1/images/generations")
async def generations(asked: Asked, serving: Serving, calling: Calling) -> Response:
    """Make pictures from a prompt."""
    call = await Call.of(serving, asked, calling)
    return await _made(call, Fields(parsed(await asked.body())))


@router.post("/openai/deployments/{deployment}/images/generations")
async def azure_generations(deployment: str, asked: Asked, serving: Serving, calling: Calling) -> Response:
    """Make pictures from a prompt: Azure's form, in which the deployment is the model."""
    call = await Call.of(serving, asked, calling)
    return await _made(call, Fields(parsed(await asked.body()) | {"model": deployment}))


@router.post("/v1/images/edits")
async def edits(asked: Asked, serving: Serving, calling: Calling) -> Response:
    """Make pictures from a picture, a prompt and perhaps a mask, where the model can."""
    return await _edited(asked, serving, calling)


@router.post("/openai/deployments/{deployment}/images/edits")
async def azure_edits(deployment: str, asked: Asked, serving: Serving, calling: Calling) -> Response:
    """The same in Azure's form."""
    return await _edited(asked, serving, calling, model=deployment)


@router.post("/v1/images/variations")
async def variations(asked: Asked, serving: Serving, calling: Calling) -> Response:
    """Make pictures that are like a picture, where the model can start from one: an edit without words."""
    return await _edited(asked, serving, calling, prompt="")


@router.get("/v1/models")
async def models(serving: Serving) -> dict[str, Any]:
    """The models that this server offers."""
    return {"object": "list", "data": [_model(one["name"]) for one in await serving.models()]}


@router.get("/v1/models/{id:path}")
async def model(id: str, serving: Serving) -> dict[str, Any]:
    """One of them."""
    serving.place(name := id.rstrip("/"))
    return _model(name)


async def _edited(asked: Asked, serving: Service, calling: Caller, **given: str) -> Response:
    form = await forms.read(asked)
    pictures = form.files.get("image", [])
    if len(pictures) != 1:
        raise ParameterError(f"there are {len(pictures)} pictures to start from; send one", parameter="image")
    options = {"image": await serving.thread(uploads.kept, pictures[0], "image")}
    if masks := form.files.get("mask"):
        options["mask"] = await serving.thread(forms.mask_of, masks[0])
    call = await Call.of(serving, asked, calling, form.said)
    return await _made(call, Fields({**form.values, **given}, from_form=True), "edit", options)


async def _made(
    call: Call, fields: Fields, action: str = "generation", options: Mapping[str, Any] | None = None
) -> Response:
    wanted = images.wanted(fields, call.serving.settings.limits.images, action)
    requests = images.requests(call.serving, fields, wanted, options)
    job = await call.submit(requests)
    if wanted.stream:
        return StreamingResponse(
            images.events(call, job, wanted),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )
    job = await call.ended(job)
    reply = await call.serving.thread(images.reply, job, wanted, str(call.asked.base_url))
    return JSONResponse(reply, background=await call.at_end(job))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": STARTED, "owned_by": "pictura"}
