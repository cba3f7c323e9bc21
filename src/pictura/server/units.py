"""Units of sd-webui-controlnet inside AUTOMATIC1111's `alwayson_scripts`, as options of a request.

https://github.com/Mikubill/sd-webui-controlnet/wiki/API. There are no preprocessors here: pictures are used
as they are sent. What would change the result and cannot be done is refused, the rest of a unit does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pictura.attachments import open_picture, recorded
from pictura.errors import ParameterError, did_you_mean, shown
from pictura.server import uploads
from pictura.server.fields import Fields

__all__ = ["read"]

NAME = "alwayson_scripts"
# By what a unit may say of them: only that they are not wanted.
PLAIN: Mapping[str, tuple[object, ...]] = {
    "control_mode": (0, "Balanced"),
    "mask": (),
    "mask_image": (),
    "guessmode": (False,),
}
STRETCH, CROP = (0, "Just Resize", "Scale to Fit (Inner Fit)"), (1, "Crop and Resize")


def read(
    fields: Fields, offered: Mapping[str, Sequence[str]], size: tuple[int, int] | None
) -> dict[str, Any]:
    """Options `control` and `reference` of the units in a body; ParameterError for what cannot be done.

    offered: names of adapters, by the option that takes them; size: of the picture to be made, where known.
    """
    found: dict[str, Any] = {}
    for unit in _units(fields.mapping(NAME)):
        name = (unit.text("model") or "None").partition(" [")[0]  # a hash may stand behind
        if name in offered.get("reference", ()):
            if "reference" in found:
                raise ParameterError("two units are IP-Adapters; give one", parameter=NAME)
            found["reference"] = _reference(unit, name, fields)
        else:
            known = [one for names in offered.values() for one in names]
            if name not in known:
                message = f"model {shown(name)} of a unit is not offered here; {did_you_mean(name, known)}"
                raise ParameterError(message, parameter=NAME)
            found.setdefault("control", []).append(_control(unit, name, fields, size))
    return found


def _units(scripts: Mapping[str, Any]) -> Iterator[Fields]:
    """The units that are on; ParameterError for other scripts."""
    for name, script in scripts.items():
        if name.lower() != "controlnet":
            raise ParameterError(f"there is no script {shown(name)} here, only controlnet", parameter=NAME)
        units = script.get("args") if isinstance(script, Mapping) else None
        if not isinstance(units, list) or not all(isinstance(unit, Mapping) for unit in units):
            raise ParameterError("the args of controlnet are to be a list of units", parameter=NAME)
        yield from (unit for unit in map(Fields, units) if unit.flag("enabled") is not False)


def _control(unit: Fields, name: str, body: Fields, size: tuple[int, int] | None) -> dict[str, Any]:
    _refuse(unit, "")
    image = _sized(_image(unit, body), unit.get("resize_mode"), size)
    shares = {"weight": "weight", "guidance_start": "start", "guidance_end": "end"}
    said = {ours: unit.number(theirs) for theirs, ours in shares.items() if theirs in unit}
    return {"name": name, "image": image, **said}


def _reference(unit: Fields, name: str, body: Fields) -> dict[str, Any]:
    _refuse(unit, "ip-adapter")
    if unit.number("guidance_start") not in (None, 0) or unit.number("guidance_end") not in (None, 1):
        raise ParameterError("an IP-Adapter counts in every step here; leave guidance 0..1", parameter=NAME)
    said = {"weight": unit.number("weight")} if "weight" in unit else {}
    return {"name": name, "image": _image(unit, body), **said}


def _refuse(unit: Fields, module: str) -> None:
    """ParameterError for what cannot be done. module: how the name of one may begin that changes nothing."""
    said = (unit.text("module") or "none").lower()
    if said != "none" and not (module and said.startswith(module)):
        raise ParameterError(
            f"module is {shown(said)}; there are no preprocessors here, send the finished picture and none",
            parameter=NAME,
        )
    for name, plain in PLAIN.items():
        if name in unit and unit.get(name) not in plain:
            raise ParameterError(
                f"{name} of a unit is {shown(unit.get(name))}, which is not possible here; leave it out",
                parameter=NAME,
            )


def _image(unit: Fields, body: Fields) -> dict[str, str]:
    """The unit's picture; in img2img the one that is begun with, where it has none."""
    given = unit.get("image") or unit.get("input_image")
    if isinstance(given, Mapping):
        if given.get("mask"):
            raise ParameterError("mask of a unit is not possible here; leave it out", parameter=NAME)
        given = given.get("image")
    begun = body.get("init_images")
    if not given and isinstance(begun, list) and begun:
        given = begun[0]
    if not given:
        raise ParameterError("a unit of controlnet has no image; give one as base64", parameter=NAME)
    return uploads.kept(uploads.picture_in(given, "image of a unit"), "image of a unit")


def _sized(record: dict[str, str], mode: object, size: tuple[int, int] | None) -> dict[str, str]:
    """The picture with the sides' ratio of the one to be made; the family stretches what is left."""
    if size is None or mode in STRETCH:
        return record
    image = open_picture(record, NAME)
    if abs(image.width * size[1] - image.height * size[0]) < max(*image.size, *size):
        return record  # not a pixel would go
    if mode is not None and mode not in CROP:
        raise ParameterError(
            f"resize_mode is {shown(mode)}; send a picture of the ratio {size[0]}:{size[1]}, or crop it",
            parameter=NAME,
        )
    from PIL import Image, ImageOps

    return recorded(ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS), NAME)
