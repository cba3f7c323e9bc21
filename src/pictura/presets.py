"""Which model a name means: built in, the user's own, a folder, or on the hub."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from pictura import families, providers
from pictura.errors import ParameterError, PresetError, did_you_mean, shown
from pictura.families import Preset
from pictura.formats import hub, kaggle
from pictura.providers import Provider

__all__ = [
    "Preset", "Source", "check", "connect", "local_only", "names", "presets", "register", "remote", "resolve"
]  # fmt: skip

_own: dict[str, Preset] = {}  # what `register` was told, in this process


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model lies on this machine, a folder or a file. Links in it may lead as far as `root`.

    name: how pictures record it; commit: of the hub's repository; sha256: what its weights are known to have.
    """

    name: str
    path: Path
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


def resolve(preset: str | os.PathLike[str], *, variant: str | None = None) -> Source:
    """Find `preset` and download it if need be. A name wins over a folder; write "./name" for the folder.

    variant: of the weights to download, such as "fp16", where there are several.

    PresetError where there is no such preset.
    """
    given = os.fspath(preset)
    if not isinstance(given, str) or not given or "\0" in given:
        raise PresetError(f"preset {shown(given)} is not possible; give a name, a folder or hf://org/name")
    known = presets().get(given) if isinstance(preset, str) else None
    if known is not None:
        return _known(given, known, variant)
    return _remote(given, variant) if "://" in given else _lying(given)


def check(preset: str) -> None:
    """PresetError where `resolve` would find nothing on this machine; what is elsewhere is not looked for."""
    if preset not in presets() and "://" not in preset:
        _lying(preset)


def _lying(given: str) -> Source:
    path = Path(given).expanduser()
    if path.is_dir():
        return Source(name=given, path=path, root=path)
    if path.is_file():
        return Source(name=given, path=path, root=path.parent)
    if os.sep in given or os.path.lexists(path):
        raise PresetError(f"preset {shown(given)} is no folder and no file; give one that holds a model")
    raise PresetError(f"preset {shown(given)} is unknown; {did_you_mean(given, presets())}")


def remote(preset: object) -> str | None:
    """`preset` as the address of a remote model, where it is one or a name for one; None for others."""
    given = os.fspath(preset) if isinstance(preset, (str, os.PathLike)) else ""
    known = presets().get(given) if isinstance(preset, str) else None
    text = known.uri if known is not None and known.uri is not None else given
    scheme, slashes, _ = text.partition("://") if isinstance(text, str) else ("", "", "")
    if not slashes:
        return None
    kind, plus, transport = scheme.partition("+")
    is_service = scheme in ("http", "https") or providers.known(scheme)
    return text if is_service or (plus and transport in ("http", "https") and providers.known(kind)) else None


def connect(preset: str, *, api: str | None = None, **settings: Any) -> tuple[str, Provider]:
    """(name, provider) of a remote model. The name says all but the key, so that it can be opened again:

        openai://MODEL              the service at its own address
        openai+https://host/v1#MODEL    at another; the same as https://host/v1#MODEL with api="openai"

    PresetError and ParameterError for what cannot be.
    """
    scheme, _, rest = preset.partition("://")
    kind, plus, transport = scheme.partition("+")
    if scheme in ("http", "https"):
        kind, transport, plus = "", scheme, "+"
    if api is not None and kind and providers.canonical(api) != providers.canonical(kind):
        raise PresetError(f"preset {shown(preset)} is of api {kind!r} and not {shown(api)}; say it once")
    kind = kind or api or ""
    if not kind:
        raise PresetError(
            f"preset {shown(preset)} does not say which interface it has; add api= one of "
            f"{', '.join(providers.names())}"
        )
    model = rest
    if plus:
        address, _, model = rest.partition("#")
        if settings.get("base_url") is not None:
            raise PresetError(f"base_url is given in the preset {shown(preset)} and beside it; say it once")
        settings["base_url"] = f"{transport}://{address}"
    kind = providers.canonical(kind)
    model = settings.pop("model", None) or model
    try:
        provider = cast(Callable[..., Provider], providers.load(kind))(model, **settings)
    except TypeError as error:  # from whatever class a package brings
        raise ParameterError(f"{kind} cannot be used so: {error}", parameter="settings") from error
    base = getattr(provider, "base_url", None)
    if base is None or getattr(provider, "own", True):
        return f"{providers.scheme(kind)}://{model}", provider
    return f"{kind}+{base}" + (f"#{model}" if model else ""), provider


def local_only(**given: Any) -> None:
    """ParameterError for what has no meaning for a remote model, unless it has its default."""
    usual = {"load_weights": True, "device": "auto", "exact": False}
    for name, value in given.items():
        if value != usual.get(name):
            raise ParameterError(
                f"{name} is {shown(value)}, but the model is remote; leave it out", parameter=name
            )


def _known(name: str, preset: Preset, variant: str | None) -> Source:
    if preset.uri is not None:
        if "://" in preset.uri:
            return replace(_remote(preset.uri, variant), sha256=preset.sha256)
        folder = Path(preset.uri)
        if folder.is_file():
            return Source(name=name, path=folder, root=folder.parent)
    else:
        spec = importlib.util.find_spec(families.package(preset.family))
        if spec is None or spec.origin is None:
            raise PresetError(f"preset {name!r} lies in a package that cannot be found; install it again")
        folder = Path(spec.origin).parent / (preset.folder or ".")
    if not folder.is_dir():
        raise PresetError(f"preset {name!r} has no folder {str(folder)!r}; install or register it again")
    return Source(name=name, path=folder, root=folder, sha256=preset.sha256)


def _remote(handle: str, variant: str | None) -> Source:
    scheme = handle.partition("://")[0]
    if scheme == "kaggle":
        place = kaggle.fetch(handle)
        return Source(name=place.handle, path=place.folder, root=place.folder)
    if scheme != "hf":
        raise PresetError(
            f"preset {shown(handle)}: {shown(scheme)} is unknown; use a name, a folder, a file, "
            "hf://org/name, kaggle://owner/model/framework/variation or a remote model such as openai://MODEL"
        )
    found = hub.fetch(handle, variant=variant)
    return Source(name=found.handle, path=found.path, root=found.root, commit=found.commit)


def _absolute(place: str) -> str:
    return place if "://" in place else str(Path(place).expanduser().absolute())
