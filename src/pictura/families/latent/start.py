"""Where a run begins: noise, a picture that is noised, or a picture of which a part is kept."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pictura import schedulers
from pictura.attachments import open_picture
from pictura.engine import Answers, Ask, Denoise, SubProgram
from pictura.families.latent.guiding import Region
from pictura.families.latent.sizes import added
from pictura.levels import Level
from pictura.request import Request
from pictura.schedulers import Plan

__all__ = ["Begun", "Pass", "begin", "kept", "passes", "prepare", "strength"]

Noise = Callable[[], Tensor]


class _Latents(Protocol):
    """As much of a family as beginning needs."""

    scheduler: dict[str, Any]

    def scaled(self, z: Tensor) -> Tensor: ...

    @property
    def inpaints(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One run. refines: it begins at the picture that the pass before made. tile: ask about tiles."""

    request: Request
    refines: bool = False
    tile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Begun:
    """x at level `begin`. `known` and `mask` (1, 1, h, w): the latent that stays where the mask is 0.
    shown: what the network sees at that level instead of x. beside (1, k, h, w): what an inpainting network
    sees beside x."""

    x: Tensor
    begin: int = 0
    shown: Tensor | None = None
    known: Tensor | None = None
    mask: Tensor | None = None
    beside: Tensor | None = None
    regions: tuple[Region, ...] = ()


def passes(request: Request, multiple: int) -> list[Pass]:
    """One, or with `hires` two: at a fraction of the size, then at all of it."""
    options = request.options
    tile = bool(options.get("tile") or options.get("upscale"))
    factor = options.get("hires")
    if not factor:
        return [Pass(request=request, tile=tile)]
    assert request.size is not None
    small = tuple(max(round(side / factor / multiple), 1) * multiple for side in request.size)
    again = {**options, "strength": options.get("hires_strength", 0.5)}
    return [
        Pass(request=replace(request, size=small)),
        Pass(request=replace(request, options=again), refines=True, tile=tile),
    ]


def strength(options: Mapping[str, Any]) -> float:
    """How much of a picture is made anew where the request does not say."""
    if options.get("strength") is not None:
        return float(options["strength"])
    if options.get("mask") is not None or options.get("outpaint") is not None:
        return 1.0
    return 0.35 if options.get("upscale") else 0.8


def begin(part: Pass, *, flow: bool) -> int:
    """The level at which a run begins; flows round the number of steps left up, others down."""
    steps = part.request.num_steps or 0
    if not part.refines and part.request.options.get("image") is None:
        return 0
    share = strength(part.request.options)
    return int(steps - min(steps * share, steps)) if flow else schedulers.begin_at(steps, share)


def prepare(
    family: _Latents, part: Pass, plan: Plan, picture: Tensor | None, noise: Noise
) -> Generator[tuple[Ask, ...], Answers, Begun]:
    """Noise the picture there is. Draws in this order: the picture's latent, the noise, the masked latent."""
    options, size = part.request.options, part.request.size
    assert size is not None
    masked = not part.refines and (options.get("mask") or options.get("outpaint")) is not None
    if picture is None and options.get("image") is None:
        first = plan.start * noise()
        return Begun(x=first, regions=_regions(options, first.shape))
    at = begin(part, flow=schedulers.is_flow(family.scheduler))
    level = plan.levels[at]
    source = _enlarged(picture, size) if part.refines and picture is not None else canvas(options, size)
    whole = masked and strength(options) == 1.0
    known = None
    if not (family.inpaints and whole):
        known = yield from encoded(family, source, noise)
    fresh = noise()
    x = plan.start * fresh if known is None else level.alpha * known + level.sigma * fresh
    regions = _regions(options, x.shape)
    if not masked:
        return Begun(x=x, begin=at, regions=regions)
    mask = mask_of(options, size)
    small = F.interpolate(mask, size=x.shape[2:])
    if family.inpaints:
        hidden = yield from encoded(family, source * (mask < 0.5), noise)
        return Begun(x=x, begin=at, beside=torch.cat([small, hidden], 1), regions=regions)
    if not whole:
        return Begun(x=x, begin=at, known=known, mask=small, regions=regions)
    # All of it is noise to the network at first, as in the field; the solver needs the known part in it.
    shown = plan.start * fresh
    x = small * shown + (1 - small) * x
    return Begun(x=x, begin=at, shown=shown, known=known, mask=small, regions=regions)


def kept(denoise: Denoise, begun: Begun, first: Level) -> Denoise:
    """Answer with the known latent outside the mask (Lugmayr et al. 2022, eq. 8, on x_0).

    x was alpha * known + sigma * noise there, and a solver that draws nothing keeps it so at every level.
    """
    known, mask = begun.known, begun.mask
    if known is None or mask is None:
        return denoise

    def blended(x: Tensor, level: Level) -> SubProgram:
        seen = begun.shown if begun.shown is not None and level == first else x
        x0 = yield from denoise(seen, level)
        return mask * x0 + (1 - mask) * known

    return blended


def encoded(family: _Latents, picture: Tensor, noise: Noise) -> Generator[tuple[Ask, ...], Answers, Tensor]:
    """A sample of the picture's latent, as the model sees it."""
    (moments,) = yield (Ask("encode", {"x": picture}),)
    mean, logvar = moments.chunk(2, 1)
    return family.scaled(mean + torch.exp(0.5 * logvar) * noise())


def canvas(options: Mapping[str, Any], size: tuple[int, int]) -> Tensor:
    """`image` in `size`, (1, 3, h, w) in [-1, 1]; what `outpaint` adds repeats its edges."""
    image = open_picture(options["image"], "image").convert("RGB")
    more = added(options.get("outpaint"))
    if any(more.values()):
        border = ((more["top"], more["bottom"]), (more["left"], more["right"]), (0, 0))
        image = Image.fromarray(np.pad(np.asarray(image), border, mode="edge"))
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(image, np.float32) / 255)[None].permute(0, 3, 1, 2) * 2 - 1


def mask_of(options: Mapping[str, Any], size: tuple[int, int]) -> Tensor:
    """(1, 1, h, w): 1 where the picture is made anew, as `mask` says or where `outpaint` adds."""
    if options.get("mask") is not None:
        image = open_picture(options["mask"], "mask").convert("L")
    else:
        more = added(options["outpaint"])
        width, height = open_picture(options["image"], "image").size
        border = ((more["top"], more["bottom"]), (more["left"], more["right"]))
        image = Image.fromarray(np.pad(np.zeros((height, width), np.uint8), border, constant_values=255))
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy((np.asarray(image, np.float32) / 255 >= 0.5).astype(np.float32))[None, None]


def _enlarged(picture: Tensor, size: tuple[int, int]) -> Tensor:
    larger = F.interpolate(picture, size=size[::-1], mode="bicubic", antialias=True)
    return larger.clamp(-1, 1)


def _regions(options: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Region, ...]:
    """The weight of the prompt and of each region's own, over the latent."""
    given = options.get("regions") or ()
    if not given:
        return ()
    height, width = shape[2:]
    maps = [Region(weight=torch.full((1, 1, height, width), float(options.get("base_weight", 0.3))))]
    for region in given:
        left, top, right, bottom = region["box"]
        weight = torch.zeros(1, 1, height, width)
        rows = slice(int(top * height), max(round(bottom * height), int(top * height) + 1))
        columns = slice(int(left * width), max(round(right * width), int(left * width) + 1))
        weight[:, :, rows, columns] = float(region.get("weight", 1.0))
        maps.append(Region(weight=weight))
    return tuple(maps)
