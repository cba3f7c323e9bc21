"""Which model a name means: built in, the user's own, a folder, or on the hub."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pictura import families
from pictura.errors import PresetError, did_you_mean, shown
from pictura.families import Preset
from pictura.formats import hub

__all__ = ["Preset", "Source", "names", "presets", "register", "resolve"]

_own: dict[str, Preset] = {}  # what `register` was told, in this process


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model lies on this machine. Links in `folder` may lead as far as `root`.

    name: how pictures record it; commit: of the hub's repository; sha256: what its weights are known to have.
    """

    name: str
    folder: Path
    root: Path
    commit: str | None = None
    sha256: str | None = None


def presets() -> Mapping[str, Preset]:
    """Every preset with a name, built in or registered."""
    return {**families.presets(), **_own}


def names() -> tuple[str, ...]:
    """The names of all presets, sorted."""
    return tuple(sorted(presets()))


def register(name: str, preset: str | os.PathLike[str] | Preset) -> None:
    """Let `name` mean `preset`, a folder, a hub handle or a `Preset`, for `from_preset` in this process.

    PresetError where `name` already means something else or could be mistaken for a path or a handle.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.+-]{0,99}", name):
        raise PresetError(
            f"preset name {shown(name)} is not possible; use letters, digits, '.', '_', '-' and '+'"
        )
    if isinstance(preset, Preset):
        entry = preset
    else:
        entry = Preset(name=name, family="", uri=_absolute(os.fspath(preset)))
    if presets().get(name, entry) != entry:
        raise PresetError(f"preset {name!r} exists already; choose another name")
    _own[name] = entry


def resolve(preset: str | os.PathLike[str]) -> Source:
    """Find `preset` and download it if need be. A name wins over a folder; write "./name" for the folder.

    PresetError where there is no such preset.
    """
    given = os.fspath(preset)
    if not isinstance(given, str) or not given or "\0" in given:
        raise PresetError(f"preset {shown(given)} is not possible; give a name, a folder or hf://org/name")
    known = presets().get(given) if isinstance(preset, str) else None
    if known is not None:
        return _known(given, known)
    if "://" in given:
        return _remote(given)
    folder = Path(given).expanduser()
    if folder.is_dir():
        return Source(name=given, folder=folder, root=folder)
    if os.sep in given or folder.exists():
        raise PresetError(f"preset {shown(given)} is no folder; give one that holds config.json")
    raise PresetError(f"preset {shown(given)} is unknown; {did_you_mean(given, presets())}")


def _known(name: str, preset: Preset) -> Source:
    if preset.uri is not None:
        if "://" in preset.uri:
            return replace(_remote(preset.uri), sha256=preset.sha256)
        folder = Path(preset.uri)
    else:
        spec = importlib.util.find_spec(families.package(preset.family))
        if spec is None or spec.origin is None:
            raise PresetError(f"preset {name!r} lies in a package that cannot be found; install it again")
        folder = Path(spec.origin).parent / (preset.folder or ".")
    if not folder.is_dir():
        raise PresetError(f"preset {name!r} has no folder {str(folder)!r}; install or register it again")
    return Source(name=name, folder=folder, root=folder, sha256=preset.sha256)


def _remote(handle: str) -> Source:
    if not handle.startswith("hf://"):
        scheme = handle.partition("://")[0]
        raise PresetError(
            f"preset {shown(handle)}: {scheme}:// is unknown; use a name, a folder or hf://org/name"
        )
    found = hub.fetch(handle)
    return Source(name=found.handle, folder=found.folder, root=found.root, commit=found.commit)


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().absolute())
