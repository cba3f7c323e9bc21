"""What a request may ask of a latent diffusion model: all of it is checked before any work is done."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from pictura import samplers, schedulers
from pictura.attachments import open_picture
from pictura.errors import ParameterError, shown
from pictura.families.latent import sizes, start
from pictura.request import MAX_SIDE, Request

if TYPE_CHECKING:
    from pictura.families.latent import LatentDiffusion

__all__ = ["check", "interval", "sampler_options"]

_ABOVE = {"strength": 1.0, "hires_strength": 1.0, "hires": 8.0, "upscale": 8.0, "base_weight": 100.0}


def check(family: LatentDiffusion, request: Request) -> None:
    """ParameterError for the first thing that is not possible."""
    if request.sampler is None:
        schedulers.own_sampler(family.scheduler)
    _check_size(family, request)
    _check_numbers(request.options)
    _check_picture(family, request)
    _check_regions(request.options.get("regions") or ())
    scale, prompt = family.scale_of(request), request.negative_prompt
    if prompt and scale <= 1:
        name = "true_guidance_scale" if "true_guidance_scale" in family.options else "guidance_scale"
        raise ParameterError(
            f"negative_prompt does nothing at {name} {scale:g}; give a {name} above 1 with it",
            parameter="negative_prompt",
        )
    for part in start.passes(request, family.multiple):
        plan = family.plan(part.request)
        samplers.check_options(plan.sampler, sampler_options(plan.sampler, request.options))
        if start.begin(part, flow=schedulers.is_flow(family.scheduler)) >= len(plan.levels) - 1:
            name = "hires_strength" if part.refines else "strength"
            share = start.strength(part.request.options)
            raise ParameterError(
                f"{name} {share:g} of {request.num_steps} steps leaves none; give a larger one or more steps",
                parameter=name,
            )


def sampler_options(sampler: str, options: Mapping[str, Any]) -> dict[str, float]:
    """The options that are the sampler's own; `eta` as it is given, so that others refuse it."""
    return {} if options.get("eta") is None else {"eta": float(options["eta"])}


def _check_size(family: LatentDiffusion, request: Request) -> None:
    assert request.size is not None
    (width, height), step = request.size, family.multiple
    if width % step or height % step:
        near = "x".join(str(max(round(side / step), 1) * step) for side in request.size)
        raise ParameterError(
            f"size {width}x{height} is not possible: sides are multiples of {step}; the nearest is {near}",
            parameter="size",
        )
    most = family.largest
    if max(request.size) > most:
        raise ParameterError(
            f"size {width}x{height} is not possible: this model draws at most {most} a side", parameter="size"
        )
    aspect = request.options.get("aspect")
    if aspect is not None and request.size != (best := sizes.best(sizes.ratio(aspect), family.native, step)):
        raise ParameterError(
            f"aspect {aspect} is {best[0]}x{best[1]} with this model, and size {width}x{height} is given; "
            "give one of them",
            parameter="aspect",
        )


MOST_STEPS_KEPT = 20


def _check_numbers(options: Mapping[str, Any]) -> None:
    for name, most in _ABOVE.items():
        value = options.get(name)
        if value is not None and not 0 < value <= most:
            raise ParameterError(
                f"{name} is {shown(value)}; give a number above 0 up to {most:g}", parameter=name
            )
    if not 0 <= (options.get("block_cache") or 0.0) <= 1:
        value = options["block_cache"]
        raise ParameterError(f"block_cache is {shown(value)}; give 0 to 1", parameter="block_cache")
    if not 1 <= (options.get("deep_cache") or 1) <= MOST_STEPS_KEPT:
        value = options["deep_cache"]
        raise ParameterError(
            f"deep_cache is {shown(value)}; give 1, every step in full, to {MOST_STEPS_KEPT}",
            parameter="deep_cache",
        )
    interval(options)
    if not 0 <= (options.get("guidance_rescale") or 0.0) <= 1:
        value = options["guidance_rescale"]
        raise ParameterError(f"guidance_rescale is {shown(value)}; give 0 to 1", parameter="guidance_rescale")


def interval(options: Mapping[str, Any]) -> tuple[float, float]:
    """Between which sigma / alpha there is guidance: above the first, up to the second."""
    low, high = options.get("guidance_low") or 0.0, options.get("guidance_high")
    high = inf if high is None else high
    if not 0 <= low < high:
        raise ParameterError(
            f"guidance_low is {shown(low)} and guidance_high {shown(high)}; give 0 or more and one above it",
            parameter="guidance_low",
        )
    return low, high


def _check_picture(family: LatentDiffusion, request: Request) -> None:
    options = request.options
    image, mask = options.get("image"), options.get("mask")
    sizes.added(options.get("outpaint"))
    for name in ("mask", "outpaint", "upscale", "strength"):
        if options.get(name) is not None and image is None:
            raise ParameterError(f"{name} needs a picture; give one as image", parameter=name)
    if mask is not None and options.get("outpaint") is not None:
        raise ParameterError("outpaint has a mask of its own; give mask or outpaint", parameter="mask")
    if mask is not None and options.get("upscale") is not None:
        raise ParameterError("upscale makes all of a picture anew; give mask or upscale", parameter="mask")
    if family.inpaints and (image is None or mask is None and options.get("outpaint") is None):
        raise ParameterError(
            "this model fills in parts of pictures; give image, and mask or outpaint", parameter="image"
        )
    for name, record in (("image", image), ("mask", mask)):
        if record is not None:
            open_picture(record, name)
    if options.get("hires") and (options.get("upscale") or mask or options.get("outpaint")):
        raise ParameterError(
            "hires makes all of a picture; give it without mask or upscale", parameter="hires"
        )


def _check_regions(regions: Any) -> None:
    for region in regions:
        known = isinstance(region, Mapping) and not set(region) - {"prompt", "box", "weight"}
        if not known or not isinstance(region.get("prompt"), str):
            raise _region(region)
        box, weight = region.get("box"), region.get("weight", 1.0)
        numbers = isinstance(box, tuple) and len(box) == 4 and all(isinstance(x, int | float) for x in box)
        if not numbers or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise _region(region)
        if not isinstance(weight, int | float) or not isfinite(weight) or not 0 < weight <= MAX_SIDE:
            raise _region(region)


def _region(region: object) -> ParameterError:
    return ParameterError(
        f"regions has {shown(dict(region) if isinstance(region, Mapping) else region)}; each is "
        "{'prompt': text, 'box': [left, top, right, bottom] from 0 to 1, 'weight': a number above 0}",
        parameter="regions",
    )
