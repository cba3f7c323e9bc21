"""Pictures to start from, masks and shapes, as `pictura generate` takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pictura.errors import ParameterError, shown

__all__ = [
    "Aspect",
    "Control",
    "Hires",
    "Image",
    "Mask",
    "IpAdapter",
    "Outpaint",
    "StyleImage",
    "Strength",
    "Upscale",
    "conditions",
    "steering",
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
Control = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL:FILE[:WEIGHT]",
        help="Steer by a picture: MODEL is the folder, file or name of a ControlNet or T2I-Adapter.",
    ),
]
StyleImage = Annotated[
    str | None, typer.Option("--style-image", metavar="FILE", help="A picture in whose style to draw.")
]
IpAdapter = Annotated[
    str | None,
    typer.Option("--ip-adapter", metavar="FILE[:WEIGHT]", help="The IP-Adapter that reads --style-image."),
]


def steering(controls: Sequence[str] | None, style_image: str | None, adapter: str | None) -> dict[str, Any]:
    """The options of a request that these are."""
    found: dict[str, Any] = {}
    if controls:
        found["control"] = [_control(text) for text in controls]
    if (style_image is None) != (adapter is None):
        raise ParameterError("--style-image and --ip-adapter go together; give both", parameter="reference")
    if style_image is not None and adapter is not None:
        model, weight = _weighed(adapter)
        found["reference"] = {"model": model, "image": style_image, **weight}
    return found


def _control(text: str) -> dict[str, Any]:
    from pictura import presets

    place, weight = _weighed(text)
    model, colon, image = place.rpartition(":")
    if not colon or not model or not image:
        raise ParameterError(f"control is {shown(text)}; give MODEL:FILE", parameter="control")
    known = presets.presets().get(model)
    return {"model": (known.uri or model) if known else model, "image": image, **weight}


def _weighed(text: str) -> tuple[str, dict[str, float]]:
    """`text` without the weight behind its last colon, if there is a number."""
    place, colon, last = text.rpartition(":")
    value = number(last) if colon else None
    return (place, {"weight": value}) if isinstance(value, float) else (text, {})


def conditions(size: str | None, **given: Any) -> tuple[str | None, dict[str, Any]]:
    """(size, the options that were given); a size such as 3:2 is an aspect."""
    found = {name: value for name, value in given.items() if value is not None}
    if size is not None and (":" in size or "/" in size):
        return None, {"aspect": size, **found}
    return size, found
