"""What Stable Diffusion XL is told about a picture's history (Podell et al. 2023, section 2.2)."""

from __future__ import annotations

import re

from pictura.errors import ParameterError, shown
from pictura.families import Option
from pictura.request import Request, parse_size

__all__ = ["XL", "micro"]

XL = (
    Option(name="original_size", type=str, default=None, help="XL: size before scaling, WxH"),
    Option(name="target_size", type=str, default=None, help="XL: size after cropping, WxH"),
    Option(name="crop", type=str, default=None, help="XL: where the crop began, LEFT,TOP"),
    Option(name="aesthetic_score", type=float, default=None, help="XL refiner: 1 to 10, 6 unless given"),
)


def micro(request: Request, xl: bool, *, negative: bool = False, count: int = 6) -> tuple[float, ...]:
    """Original height and width, top and left of the crop, target height and width; the refiner, with `count`
    5, is told an aesthetic score for the last two. ParameterError for what is no size."""
    options = request.options
    for option in XL:
        if options.get(option.name) is not None and not xl:
            raise ParameterError(
                f"{option.name} is for Stable Diffusion XL, and this model is not; leave it out",
                parameter=option.name,
            )
    assert request.size is not None
    original, target = (
        parse_size(options.get(name) or request.size) for name in ("original_size", "target_size")
    )
    crop = re.fullmatch(r"\s*(\d{1,5})\s*,\s*(\d{1,5})\s*", options.get("crop") or "0,0")
    if crop is None:
        raise ParameterError(f"crop is {shown(options['crop'])}; give LEFT,TOP in pixels", parameter="crop")
    left, top = (float(edge) for edge in crop.groups())
    if count == 5:
        score = 2.5 if negative else options.get("aesthetic_score") or 6.0
        return (*map(float, original[::-1]), top, left, float(score))
    return (*map(float, original[::-1]), top, left, *map(float, target[::-1]))
