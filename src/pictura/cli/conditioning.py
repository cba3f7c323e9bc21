"""Pictures to start from, masks and shapes, as `pictura generate` takes them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

__all__ = [
    "Aspect",
    "Hires",
    "Image",
    "Mask",
    "Outpaint",
    "Strength",
    "Upscale",
    "conditions",
]


def number(text: str) -> Any:
    """A float where `text` is one; otherwise the text, for the request to refuse in its own words."""
    try:
        return float(text)
    except ValueError:
        return text


Image = Annotated[str | None, typer.Option("--image", metavar="FILE", help="A picture to start from.")]
Mask = Annotated[str | None, typer.Option("--mask", metavar="FILE", help="White where --image is made anew.")]
Strength = Annotated[
    float | None,
    typer.Option(parser=number, metavar="FLOAT", help="How much of --image is made anew, above 0 up to 1."),
]
Outpaint = Annotated[
    str | None,
    typer.Option(metavar="SIDE:PIXELS,...", help="Extend --image, such as left:64,bottom:32."),
]
Aspect = Annotated[
    str | None, typer.Option(metavar="W:H", help="Shape of the pictures, in the model's best size for it.")
]
Hires = Annotated[
    float | None,
    typer.Option(parser=number, metavar="FACTOR", help="First make it so many times smaller, then refine."),
]
Upscale = Annotated[
    float | None, typer.Option(parser=number, metavar="FACTOR", help="Enlarge --image, tile by tile.")
]


def conditions(size: str | None, **given: Any) -> tuple[str | None, dict[str, Any]]:
    """(size, the options that were given); a size such as 3:2 is an aspect."""
    found = {name: value for name, value in given.items() if value is not None}
    if size is not None and (":" in size or "/" in size):
        return None, {"aspect": size, **found}
    return size, found
