"""Which size a request means: an aspect ratio in the model's best size, or that of a given picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import log
from typing import Any

from pictura.attachments import open_picture
from pictura.errors import ParameterError, shown

__all__ = ["added", "best", "wanted"]

SIDES = ("left", "top", "right", "bottom")


def wanted(options: Mapping[str, Any], native: int, multiple: int) -> tuple[int, int] | None:
    """(width, height) from `aspect`, or from `image` with what `outpaint` and `upscale` add; None for
    neither. ParameterError where they make no sense."""
    if options.get("aspect") is not None:
        return best(ratio(options["aspect"]), native, multiple)
    if options.get("image") is None:
        return None
    width, height = open_picture(options["image"], "image").size
    factor = options.get("upscale") or 1.0
    more = added(options.get("outpaint"))
    sides = (width * factor + more["left"] + more["right"], height * factor + more["top"] + more["bottom"])
    # Down to whole multiples, as the field does; what is too small is refused later, by name.
    return tuple(max(int(side) // multiple, 1) * multiple for side in sides)  # type: ignore[return-value]


def best(ratio: float, native: int, multiple: int) -> tuple[int, int]:
    """The size nearest to width / height = `ratio` among those of the model's area or a little less, with
    sides that are multiples of 64 (Podell et al. 2023, section 2.3), of 32 for models below 1024 pixels, or
    of `multiple` for very small ones."""
    step = next(
        (step for side, step in ((1024, 64), (512, 32)) if native >= side and step % multiple == 0), multiple
    )
    area, found = native * native, []
    for width in range(step, 4 * native + 1, step):
        height = area // width // step * step
        if height >= step and 0.25 <= width / height <= 4:
            found.append((abs(log(width / height / ratio)), -width * height, (width, height)))
    return min(found)[2]


def ratio(text: str) -> float:
    """Width over height of "3:2", "16/9" or "1.5"; ParameterError where it is none, or beyond 1:4 and 4:1."""
    match = re.fullmatch(r"\s*(\d{1,5}(?:\.\d{1,5})?)\s*(?:[:/x]\s*(\d{1,5}(?:\.\d{1,5})?))?\s*", text)
    sides = [float(side) for side in match.groups("1")] if match else [0.0, 0.0]
    if min(sides) <= 0 or not 0.25 <= sides[0] / sides[1] <= 4:
        raise ParameterError(
            f"aspect is {shown(text)}; give width:height from 1:4 to 4:1, such as 3:2", parameter="aspect"
        )
    return sides[0] / sides[1]


def added(text: str | None) -> dict[str, int]:
    """Pixels by side from "left:64,top:32"; ParameterError for anything else."""
    found = dict.fromkeys(SIDES, 0)
    for part in (text or "").split(","):
        side, colon, number = part.strip().partition(":")
        if not part.strip() and not text:
            continue
        if side not in SIDES or not colon or not re.fullmatch(r"\s*\d{1,4}\s*", number):
            raise ParameterError(
                f"outpaint is {shown(text)}; give pixels for some of {', '.join(SIDES)}, such as left:64",
                parameter="outpaint",
            )
        found[side] = int(number)
    return found
