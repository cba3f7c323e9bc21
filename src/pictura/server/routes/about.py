"""/api: what this server offers, and pictures that are sent to it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as Asked

from pictura import __version__, samplers
from pictura.errors import FileError, ParameterError
from pictura.picture.metadata import Metadata, metadata_of
from pictura.server import uploads
from pictura.server.outside import outward
from pictura.server.routes import service
from pictura.server.service import Service

router = APIRouter(prefix="/api", tags=["about"])

Serving = Annotated[Service, Depends(service)]


@router.get("/info")
async def info(serving: Serving) -> dict[str, Any]:
    """The version, the default model and the limits."""
    limits = serving.settings.limits
    return {
        "version": __version__,
        "default_model": serving.settings.default,
        "key_needed": bool(serving.settings.keys),
        "limits": {
            "body_bytes": limits.body, "prompt_characters": limits.prompt, "images_per_job": limits.images,
            "pixels_times_steps": limits.work, "queue": limits.queue,
        },
        "pictures": await serving.thread(serving.history.count),
    }  # fmt: skip


@router.get("/models")
async def models(serving: Serving) -> dict[str, Any]:
    """Every model, the default first; `details` once it was loaded: parameters, options, defaults, sizes."""
    return {"items": await serving.models()}


@router.post("/models/{name:path}/load", status_code=202)
async def load(name: str, serving: Serving) -> dict[str, Any]:
    """Load a model before it is needed; /api/models tells when it is ready."""
    serving.place(name)
    serving.supervisor.want(name)
    return {"name": name, "state": serving.supervisor.states().get(name, "loading")}


@router.get("/samplers")
async def all_samplers() -> dict[str, Any]:
    """The samplers that diffusion models may use."""
    return {"items": list(samplers.names())}


@router.get("/loras")
async def loras(serving: Serving) -> dict[str, Any]:
    """The LoRA files that requests may name: options {"loras": [{"name": ..., "weight": 0.8}]}."""
    return {"items": await serving.thread(serving.loras)}


@router.get("/adapters")
async def adapters(serving: Serving) -> dict[str, list[str]]:
    """What requests may name: options {"control": [{"name", "image"[, "weight", "start", "end"]}]} for
    ControlNets and T2I-Adapters, {"reference": {"name", "image"[, "weight"]}} for IP-Adapters."""
    return await serving.thread(serving.adapters)


@router.post("/attachments", status_code=201)
async def attach(asked: Asked, serving: Serving) -> dict[str, str]:
    """Keep the picture that the body is; the answer stands for it in options that take pictures."""
    content = await asked.body()
    if not content:
        raise ParameterError("the body is empty; send a picture file", parameter="body")
    return await serving.thread(uploads.kept, content, "body")


@router.post("/inspect")
async def inspect(asked: Asked, serving: Serving) -> dict[str, Any]:
    """What the picture file that the body is says of how it was made: Pictura's, or another tool's text."""
    content = await asked.body()
    try:
        found: Metadata = await serving.thread(metadata_of, content)
    except FileError as error:
        raise ParameterError(str(error), parameter="body") from None
    request = found.request
    return {
        "source": found.source,
        "size": list(found.size),
        "request": None if request is None else outward(request).to_dict(),
        "model_digest": found.model_digest,
        "version": found.version,
        "ignored": list(found.ignored),
        "notes": list(found.notes),
        "parameters": found.parameters,
    }  # fmt: skip
