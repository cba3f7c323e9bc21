"""AUTOMATIC1111's API: what its bodies ask for, its answers, and what it remembers of its callers.

Its clients send every parameter in every request, also where nobody chose one. So what the model cannot use
is left out and told in `info`, and 512x512, their size for everything, is a model's own where it has but one.
"""

from __future__ import annotations

import base64
import json
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pictura import __version__, samplers
from pictura.attachments import open_picture, recorded
from pictura.errors import InputError, NotFound, ParameterError, shown
from pictura.history import Entry
from pictura.history.jobs import Job, Step
from pictura.picture import infotext
from pictura.request import Request
from pictura.samplers.schedules import SCHEDULES
from pictura.server import units, uploads
from pictura.server.fields import Fields
from pictura.server.outside import outward

__all__ = [
    "Desk", "Desks", "Found", "Running", "chosen_model", "info", "progress", "read",
    "sampler_names",
]  # fmt: skip

USUAL = (512, 512)
MOST_DESKS = 10_000


@dataclass(eq=False)
class Running:
    """A job that somebody waits for."""

    began: float = field(default_factory=time.monotonic)
    watched: bool = False
    interrupted: bool = False


@dataclass(eq=False)
class Desk:
    """What is remembered of a caller until the server ends: what `options` said, and what is being made."""

    settings: dict[str, Any] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)  # by job, the oldest first


class Desks:
    """A desk for each key and address, so that nobody's choice of a model is another's."""

    def __init__(self) -> None:
        self._desks: OrderedDict[tuple[str, str], Desk] = OrderedDict()

    def of(self, name: str, address: str) -> Desk:
        key = (name, address)
        desk = self._desks.setdefault(key, Desk())
        self._desks.move_to_end(key)
        if len(self._desks) > MOST_DESKS:
            self._desks.popitem(last=False)
        return desk


class NoSampler(NotFound):
    """A sampler or scheduler that is not there."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a body asks for. ignored: what was sent and does nothing here."""

    request: Request
    count: int
    ignored: tuple[str, ...]
    send: bool


def read(
    fields: Fields,
    model: str,
    details: Mapping[str, Any],
    most: int,
    adapters: Mapping[str, Sequence[str]] | None = None,
) -> Found:
    """The request of a body for txt2img or img2img.

    details: what the model can do; most: pictures; adapters: what is offered, as `Service.adapters` has it.
    """
    if script := fields.get("script_name"):
        message = f"script_name is {shown(script)}; there are no scripts here"
        raise ParameterError(message, parameter="script_name")
    sampler, schedule = _sampler(fields)
    seed = fields.whole("seed")
    width, height = fields.whole("width", 0), fields.whole("height", 0)
    size = _size(width, height, details)
    options = _options(fields, width, height) | units.read(fields, adapters or {}, size)
    given = {
        "negative_prompt": fields.text("negative_prompt") or None,
        "seed": None if seed is not None and seed < 0 else seed,
        "num_steps": fields.whole("steps"),
        "guidance_scale": fields.number("cfg_scale"),
        "sampler": sampler,
        "schedule": schedule,
        "size": size,
    }
    usable = {"seed", *details.get("parameters", given)}
    unused = [name for name, value in given.items() if value is not None and name not in usable]
    request = Request(
        prompt=fields.text("prompt") or "",
        model=model,
        options=options,
        **{name: value for name, value in given.items() if name not in unused},  # type: ignore[arg-type]
    )
    count = (fields.whole("batch_size", 1, most) or 1) * (fields.whole("n_iter", 1, most) or 1)
    return Found(
        request=request, count=count, ignored=tuple(unused), send=fields.flag("send_images") is not False
    )


def info(job: Job, found: Found, digest: str | None) -> str:
    """What made the pictures, as JSON in a text."""
    entries = job.images
    request = entries[0].request if entries else found.request
    width, height = entries[0].size if entries else request.size or (0, 0)
    seeds = [-1 if entry.request.seed is None else entry.request.seed for entry in entries]
    negatives = [entry.request.negative_prompt or "" for entry in entries]
    said = {
        "prompt": request.prompt,
        "all_prompts": [entry.request.prompt for entry in entries],
        "negative_prompt": request.negative_prompt or "",
        "all_negative_prompts": negatives,
        "seed": seeds[0] if seeds else -1,
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * len(seeds),
        "subseed_strength": 0,
        "width": width,
        "height": height,
        "sampler_name": infotext.SAMPLERS.get(request.sampler or "", request.sampler or ""),
        "cfg_scale": request.guidance_scale,
        "steps": request.num_steps,
        "batch_size": found.count,
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": request.model,
        "sd_model_hash": (digest or "")[:10],
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": request.options.get("strength"),
        "extra_generation_params": {"Ignored": ", ".join(found.ignored)} if found.ignored else {},
        "index_of_first_image": 0,
        "infotexts": [_text(entry) for entry in entries],
        "styles": list(request.options.get("style") or ()),
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.gmtime(job.made_at / 1e6)),
        "clip_skip": request.options.get("clip_skip") or 1,
        "is_using_inpainting_conditioning": False,
        "version": f"pictura {__version__}",
    }
    return json.dumps(said)


def progress(job: Job | None, running: Running, steps: list[Step], preview: bytes | None) -> dict[str, Any]:
    """How far a job is; None: there is none."""
    done, total = (0, 0) if job is None else (len(job.images) + len(job.failures), job.total)
    parts = sum(step.step / step.total for step in steps if step.total)
    share = 0.0 if job is None else min(1.0, max(0.01, (done + parts) / total))
    passed = time.monotonic() - running.began
    now = steps[0] if steps else None
    stamp = time.gmtime(None if job is None else job.made_at / 1e6)
    return {
        "progress": share,
        "eta_relative": passed / share - passed if share else 0.0,
        "state": {
            "skipped": False,
            "interrupted": running.interrupted,
            "stopping_generation": running.interrupted,
            "job": "" if job is None else job.id,
            "job_count": total,
            "job_timestamp": time.strftime("%Y%m%d%H%M%S", stamp),
            "job_no": min(done, max(total - 1, 0)),
            "sampling_step": now.step if now else 0,
            "sampling_steps": (now.total if now else None) or 0,
        },
        "current_image": None if preview is None else base64.b64encode(preview).decode(),
        "textinfo": None,
    }


def sampler_names() -> dict[str, str]:
    """Our samplers by the names that clients know."""
    return {infotext.SAMPLERS.get(name, name): name for name in samplers.names()}


def _sampler(fields: Fields) -> tuple[str | None, str | None]:
    given = fields.text(fields.first("sampler_name", "sampler_index")) or None
    scheduler = fields.text("scheduler") or None
    sampler, schedule = infotext.own_names(given or "Euler", scheduler)
    if sampler not in samplers.names():
        raise NoSampler(f"Sampler not found: {shown(given)}; there are {', '.join(sampler_names())}")
    if schedule is not None and schedule not in SCHEDULES:
        known = ", ".join(infotext.SCHEDULES.values())
        raise NoSampler(f"Scheduler not found: {shown(scheduler)}; there are Automatic, {known}")
    return sampler if given else None, schedule


def _size(width: int | None, height: int | None, details: Mapping[str, Any]) -> tuple[int, int] | None:
    fixed = details.get("sizes", {}).get("fixed")
    size = (width or USUAL[0], height or USUAL[1])
    if (not width and not height) or (fixed and size == USUAL):
        return None
    return size


def _options(fields: Fields, width: int | None, height: int | None) -> dict[str, Any]:
    """Pictures to start from, and what else stands in options."""
    found: dict[str, Any] = {}
    styles = [] if fields.get("styles") is None else fields.get("styles")
    if not isinstance(styles, list) or not all(isinstance(name, str) for name in styles):
        raise ParameterError(f"styles is {shown(styles)}; give a list of names", parameter="styles")
    if styles:
        found["style"] = styles
    settings = fields.mapping("override_settings")
    if isinstance(skip := settings.get("CLIP_stop_at_last_layers"), int) and skip > 1:
        found["clip_skip"] = skip
    if fields.flag("enable_hr"):
        found["hires"] = fields.number("hr_scale") or 2.0
        if (strength := fields.number("denoising_strength")) is not None:
            found["hires_strength"] = strength
    images = fields.get("init_images")
    if images is None:
        return found
    if not isinstance(images, list) or len(images) != 1:
        raise ParameterError("init_images is to hold one picture", parameter="init_images")
    found["image"] = _resized(uploads.picture_in(images[0], "init_images"), "init_images", width, height)
    if (strength := fields.number("denoising_strength")) is not None:
        found["strength"] = strength
    if fields.get("mask") is not None:
        invert = bool(fields.whole("inpainting_mask_invert", 0, 1))
        found["mask"] = _mask(uploads.picture_in(fields.get("mask"), "mask"), width, height, invert)
    return found


def _resized(content: bytes, name: str, width: int | None, height: int | None) -> dict[str, str]:
    """The picture, in the size that the answer is to have, which stretches it as its resize_mode 0 does."""
    record = uploads.kept(content, name)
    image = open_picture(record, name)
    if not width or not height or image.size == (width, height):
        return record
    return recorded(image.convert("RGB").resize(uploads.possible(width, height)), name)


def _mask(content: bytes, width: int | None, height: int | None, invert: bool) -> dict[str, str]:
    """White where it is made anew."""
    from PIL import ImageOps

    image = open_picture(uploads.kept(content, "mask"), "mask").convert("L")
    if width and height:
        image = image.resize(uploads.possible(width, height))
    return recorded(ImageOps.invert(image) if invert else image, "mask")


def _text(entry: Entry) -> str:
    digest, version = entry.model_digest, str(entry.details.get("version", ""))
    return infotext.write(outward(entry.request), model_digest=digest, version=version)


def chosen_model(value: object, offered: Mapping[str, str]) -> str:
    """The model that a checkpoint's title stands for: its name, perhaps with a hash behind."""
    if not isinstance(value, str):
        raise ParameterError(
            f"sd_model_checkpoint is {shown(value)}; give a name", parameter="sd_model_checkpoint"
        )
    name = value if value in offered else value.partition(" [")[0].removesuffix(".safetensors")
    if name not in offered:
        raise InputError(f"model {shown(value)} not found; there are {', '.join(sorted(offered))}")
    return name
