"""ControlNets, T2I-Adapters and IP-Adapters that a server offers by name, never by a path of a client's.

Where an entry of the options `control` and `reference` has {"model"}, a place on this machine, one from
outside has {"name"}: a folder or file below the folder that the server was given.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from pictura.errors import ParameterError, PicturaError, did_you_mean, shown
from pictura.families.stable_diffusion.steering_files import kind_of

__all__ = ["OPTIONS", "adapter_names", "placed_adapters", "without_places"]

OPTIONS = ("control", "reference")
PLACES = ("model", "encoder")  # of an entry: what only the server says
MOST = 8  # entries of a request: each is a network more in every step
_CONTROLS = ("ControlNetModel", "T2IAdapter")


def adapter_names(folder: Path | None) -> dict[str, list[str]]:
    """What requests may name in each of `OPTIONS`, as paths below `folder`; none where there is no folder.

    Folders as diffusers writes them, and .safetensors files that are no such folder's weights, by what they
    hold: ControlNets and T2I-Adapters are for `control`, IP-Adapters for `reference`.
    """
    found: dict[str, list[str]] = {name: [] for name in OPTIONS}
    if folder is None or not folder.is_dir():
        return found
    configs = {config.parent: _class_of(config) for config in folder.rglob("config.json")}
    places = [("control", place) for place, kind in configs.items() if kind in _CONTROLS and place != folder]
    for file in folder.rglob("*.safetensors"):
        if file.parent not in configs and (kind := _kind_of(file)) is not None:
            places.append((kind, file))
    for name in OPTIONS:
        found[name] = sorted(place.relative_to(folder).as_posix() for of, place in places if of == name)
    return found


def placed_adapters(options: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """`options` from outside with names as places here. ParameterError for an entry that names a place."""
    found = dict(options)
    for option in OPTIONS:
        if (given := options.get(option)) is None:
            continue
        _refuse_places(given, option)
        entries = [given] if isinstance(given, Mapping) else given
        if not isinstance(entries, (list, tuple)):
            continue  # refused by whoever knows the model's options
        if sum(isinstance(one, Mapping) and "name" in one for one in entries) > MOST:
            message = f"{option} names {len(entries)} adapters; give at most {MOST}"
            raise ParameterError(message, parameter=option)
        offered = adapter_names(folder)[option]
        placed = [_placed(one, option, folder, offered) for one in entries]
        found[option] = placed[0] if isinstance(given, Mapping) else placed
    return found


def without_places(options: Mapping[str, Any]) -> dict[str, Any]:
    """`options` as they go out: adapters by their names."""
    found = dict(options)
    for option in OPTIONS:
        given = options.get(option)
        if isinstance(given, Mapping):
            found[option] = _named(given)
        elif isinstance(given, (list, tuple)):
            found[option] = [_named(one) if isinstance(one, Mapping) else one for one in given]
    return found


def _placed(entry: Any, option: str, folder: Path | None, offered: list[str]) -> Any:
    """{"name", ...} with its "model"; what has no name is left to the family, which wants a model."""
    if not isinstance(entry, Mapping) or "name" not in entry:
        return entry
    name = entry["name"]
    if folder is None or name not in offered:
        raise ParameterError(
            f"{option} {shown(name)} is not offered here; {did_you_mean(str(name), offered)}",
            parameter=option,
        )
    return {"model": str(folder.absolute() / name), **entry}


def _named(entry: Mapping[str, Any]) -> dict[str, Any]:
    """{"model", "encoder", ...} as {"name", ...}: as it was asked for, or what its place is called."""
    rest = {key: value for key, value in entry.items() if key not in PLACES}
    return {"name": PurePath(entry["model"]).name, **rest} if isinstance(entry.get("model"), str) else rest


def _refuse_places(value: object, option: str) -> None:
    if isinstance(value, Mapping):
        if any(key in value for key in PLACES):
            raise ParameterError(
                f"the options of {option} name a path or a model, which is not possible here; give the name "
                "of one that the server offers",
                parameter=option,
            )
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for inner in value:
            _refuse_places(inner, option)


def _kind_of(file: Path) -> str | None:
    try:
        state = file.stat()
        return _held(file, state.st_mtime_ns, state.st_size)
    except (OSError, PicturaError):
        return None  # half copied, or no such file: not offered


@lru_cache(maxsize=1024)
def _held(file: Path, changed: int, size: int) -> str | None:
    """Which option a file is for; read once for each of its states."""
    return kind_of(file)


def _class_of(config: Path) -> object:
    try:
        read = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return read.get("_class_name") if isinstance(read, dict) else None
