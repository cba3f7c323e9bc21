"""/sdapi/v1: options, models, samplers and the other lists that clients of AUTOMATIC1111 read.

What `options` says counts for its caller alone: everybody with the same key at the same address.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as Asked

from pictura.picture import infotext
from pictura.server import automatic
from pictura.server.automatic import Desk
from pictura.server.bodies import json_object
from pictura.server.routes import service
from pictura.server.routes.automatic1111 import Timed, desk
from pictura.server.service import Service
from pictura.text import styles

router = APIRouter(prefix="/sdapi/v1", tags=["automatic1111"], route_class=Timed)

Serving = Annotated[Service, Depends(service)]
At = Annotated[Desk, Depends(desk)]
KEPT = {"sd_model_checkpoint": None, "CLIP_stop_at_last_layers": 1}
FIXED = {"samples_format": "png", "sd_vae": "Automatic", "enable_pnginfo": True, "grid_save": False}


@router.get("/options")
async def options(serving: Serving, at: At) -> dict[str, Any]:
    """The caller's settings: the model, and how many layers of the text encoder are left out."""
    return FIXED | KEPT | {"sd_model_checkpoint": serving.settings.default} | at.settings


@router.post("/options")
async def set_options(asked: Asked, serving: Serving, at: At) -> None:
    """Change the caller's settings. What is not in the list above is accepted and does nothing."""
    body = {name: value for name, value in (await json_object(asked)).items() if value is not None}
    chosen = {name: body[name] for name in KEPT if name in body}
    if "sd_model_checkpoint" in chosen:
        name = automatic.chosen_model(chosen["sd_model_checkpoint"], serving.offered())
        chosen["sd_model_checkpoint"] = name
    at.settings.update(chosen)


@router.get("/sd-models")
async def sd_models(serving: Serving) -> list[dict[str, Any]]:
    """The models that this server offers; hashes of those that were loaded once."""
    return [
        {
            "title": one["name"],
            "model_name": one["name"],
            "hash": (digest := one.get("details", {}).get("digest")) and digest[:10],
            "sha256": digest,
            "filename": one["name"],
            "config": None,
        }
        for one in await serving.models()
    ]


@router.get("/samplers")
async def samplers() -> list[dict[str, Any]]:
    """The samplers, by the names that the original has for them."""
    return [
        {"name": name, "aliases": [own], "options": {}} for name, own in automatic.sampler_names().items()
    ]


@router.get("/schedulers")
async def schedulers() -> list[dict[str, Any]]:
    """The schedules, by the names that the original has for them."""
    known = {"automatic": "Automatic", **infotext.SCHEDULES}
    return [
        {"name": name, "label": label, "aliases": None, "default_rho": -1.0, "need_inner_model": False}
        for name, label in known.items()
    ]


@router.get("/prompt-styles")
async def prompt_styles(serving: Serving) -> list[dict[str, Any]]:
    """Texts with a name that `styles` puts around prompts."""
    known = await serving.thread(styles.load)
    return [
        {"name": name, "prompt": style.prompt, "negative_prompt": style.negative_prompt}
        for name, style in known.items()
    ]


@router.get("/loras")
async def loras(serving: Serving) -> list[dict[str, Any]]:
    """The LoRA files that this server offers."""
    names = await serving.thread(serving.loras)
    return [
        {"name": PurePosixPath(name).stem, "alias": PurePosixPath(name).stem, "path": name, "metadata": {}}
        for name in names
    ]


@router.get("/memory")
async def memory(serving: Serving) -> dict[str, Any]:
    """What the workers take, in bytes."""
    workers = await serving.thread(serving.claims.workers)
    used = sum(int(worker.stats.get("memory", 0)) for worker in workers)
    total = serving.supervisor.memory
    return {
        "ram": {"free": max(0, total - used), "used": used, "total": total},
        "cuda": {"error": "not measured here"},
    }


@router.get("/upscalers")
async def upscalers() -> list[dict[str, Any]]:
    """None but the model's own second pass (`enable_hr`)."""
    unknown = {"model_name": None, "model_path": None, "model_url": None}
    return [{"name": "None", **unknown, "scale": 4.0}]


@router.get("/scripts")
async def scripts(serving: Serving) -> dict[str, list[str]]:
    """ControlNet, where the server offers adapters."""
    offered = ["controlnet"] if any((await serving.thread(serving.adapters)).values()) else []
    return {"txt2img": offered, "img2img": offered}


@router.get("/embeddings")
async def embeddings() -> dict[str, dict[str, Any]]:
    """There are none that apply without being named."""
    return {"loaded": {}, "skipped": {}}


@router.get("/cmd-flags")
async def cmd_flags(serving: Serving) -> dict[str, Any]:
    """How the server was started, as far as clients ask."""
    return {"api": True, "listen": not serving.settings.loopback, "port": serving.settings.port}


@router.post("/refresh-checkpoints")
@router.post("/refresh-loras")
async def refresh() -> None:
    """Nothing is to be done: what is there is seen at once."""


@router.get("/sd-vae")
@router.get("/sd-modules")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/realesrgan-models")
@router.get("/latent-upscale-modes")
@router.get("/script-info")
@router.get("/extensions")
async def nothing() -> list[Any]:
    """There are none."""
    return []
