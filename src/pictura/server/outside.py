"""Requests as strangers may write and read them: without places on this machine.

Pictures stand in options by the digest that `POST /api/attachments` gave, files of LoRAs and adapters by
their names in the folders that the server offers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path, PurePath
from typing import Any

from pictura.errors import ParameterError, PicturaError, did_you_mean, shown
from pictura.options import Option
from pictura.request import Options, Request
from pictura.server import adapters

__all__ = ["lora_names", "outward", "placed", "refuse_names", "told"]

SUFFIX = ".safetensors"
PLAIN = ("path", "sha256", "name")  # what may be a text: places that we put there, digests, offered names


def lora_names(folder: Path | None) -> list[str]:
    """The files that requests may name, as paths below `folder`; none where there is no folder."""
    if folder is None or not folder.is_dir():
        return []
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(f"*{SUFFIX}"))


def placed(request: Request, loras: Path | None, folder: Path | None = None) -> Request:
    """`request` from outside with the names of LoRAs and adapters as files here.

    loras, folder: of LoRAs, of adapters. ParameterError for a path of its own.
    """
    _refuse_paths(request.options)
    options = adapters.placed_adapters(request.options, folder)
    given = options.get("lora")
    if isinstance(given, tuple):
        options["lora"] = [
            _lora(one, loras) if isinstance(one, Mapping) and "name" in one else one for one in given
        ]
    return request.amended(options=Options(options))


def outward(request: Request) -> Request:
    """A request as it goes out: files by digest, and by name where they have one."""
    options = _without_paths(adapters.without_places(request.options))
    return request.amended(options=Options(options))


def told(error: PicturaError, request: Request) -> PicturaError:
    """`error` as others may read it: files and models that `request` names here, without their folders."""
    text = str(error)
    for place in sorted(_places(request.options), key=len, reverse=True):
        folders = {PurePath(place).parent, Path(place).expanduser().absolute().parent}
        text = text.replace(shown(place), shown(PurePath(place).name))  # also where it was cut
        for folder in (f"{folder}{os.sep}" for folder in folders if str(folder) != "."):
            text = text.replace(folder, "").replace(repr(folder)[1:-1], "")
    if text == str(error):
        return error
    found = copy(error)
    found.args = (text, *error.args[1:])
    return found


def refuse_names(request: Request, options: Mapping[str, Option]) -> None:
    """ParameterError where an option that takes files holds a text: a path or a model on this machine.

    options: what the model declares, which only those who hold it know. What `placed` put there is allowed.
    """
    for name, value in request.options.items():
        known = options.get(name)
        plain = (*PLAIN, "model") if name in adapters.OPTIONS else PLAIN  # `placed` lets in no other
        if known is not None and known.attach is not None and any(_texts(value, plain)):
            raise ParameterError(
                f"{name} names a file, which is not possible here; send pictures to /api/attachments, and "
                "have the server offer LoRAs and adapters by name",
                parameter=name,
            )


def _places(value: object) -> Iterator[str]:
    """Every file and model that an option names."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if isinstance(inner, str) and inner and name in ("path", *adapters.PLACES):
                yield inner
            yield from _places(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _places(inner)


def _texts(value: object, plain: tuple[str, ...]) -> Iterator[str]:
    """Every text in an option that does not stand under one of the `plain` names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in plain:
                yield from _texts(inner, plain)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner, plain)


def _without_paths(value: Any) -> Any:
    if isinstance(value, Mapping):
        inner = {name: _without_paths(item) for name, item in value.items() if name != "path"}
        path = value.get("path")
        if isinstance(path, str) and path.endswith(SUFFIX):
            inner["name"] = PurePath(path).name
        return inner
    if isinstance(value, (list, tuple)):
        return [_without_paths(item) for item in value]
    return value


def _lora(given: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """{"name", "weight"?, "sha256"?} as {"path", ...}; one that is not offered is found by its digest."""
    name, names = given["name"], lora_names(folder)
    rest = {key: value for key, value in given.items() if key != "name"}
    if folder is not None and name in names:
        return {"path": str(folder / str(name)), **rest}
    if "sha256" in given:
        return rest
    raise ParameterError(
        f"lora {shown(name)} is not offered here; {did_you_mean(str(name), names)}", parameter="lora"
    )


def _refuse_paths(value: object) -> None:
    """Whoever asks from outside names no files of this machine."""
    if isinstance(value, Mapping):
        if "path" in value:
            raise ParameterError(
                "options name a path, which is not possible here; send the picture to /api/attachments",
                parameter="options",
            )
        for inner in value.values():
            _refuse_paths(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_paths(inner)
