"""Discovery: what exists is what lies in the right folder, plus entry points of other packages.

A name of our own wins over an entry point of the same name. Finding names imports no plug-in.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType

from pictura.errors import InputError, ParameterError, PicturaError, did_you_mean, shown


@cache
def found(
    folder: str, attribute: str = "", *, inside: str = "", skip: tuple[str, ...] = (), group: str = ""
) -> Mapping[str, str]:
    """The plug-ins of `pictura.<folder>` and of the entry points of `group` (that name, too, unless given):
    name -> "module:attribute".

    An empty `attribute` means the one named like its module; `inside` is the module within a plug-in that is
    a folder. Modules that begin with "_" are helpers.
    """
    package = importlib.import_module(f"pictura.{folder}")
    outside = {point.name: point.value for point in entry_points(group=group or f"pictura.{folder}")}
    tail = f".{inside}" if inside else ""
    ours = {
        module.name: f"{package.__name__}.{module.name}{tail}:{attribute or module.name}"
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("_") and module.name not in skip
        if not inside or _has(module, inside)
    }
    return MappingProxyType(dict(sorted({**outside, **ours}.items())))


def _has(folder: pkgutil.ModuleInfo, module: str) -> bool:
    place = getattr(folder.module_finder, "path", "")
    return folder.ispkg and Path(place, folder.name, f"{module}.py").is_file()


def loaded(kind: str, name: str, plugins: Mapping[str, str]) -> object:
    """Import the plug-in called `name`; ParameterError with a suggestion when there is none such."""
    if name not in plugins:
        raise unknown(kind, name, plugins)
    module, _, attribute = plugins[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except PicturaError:
        raise
    except Exception as error:  # a plug-in of someone else may fail in any way
        raise InputError(
            f"{kind} {name!r} could not be imported from {plugins[name]} ({type(error).__name__}: {error}); "
            "repair or uninstall the package that brings it"
        ) from error


def unknown(kind: str, name: str, choices: Iterable[str]) -> ParameterError:
    """The error for a `name` that is none of `choices`; `kind` is also the parameter's name."""
    return ParameterError(
        f"{kind} {shown(name)} is unknown; {did_you_mean(str(name), choices)}", parameter=kind
    )
