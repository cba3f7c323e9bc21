"""Pictura: text to pictures.

    import pictura

    model = pictura.TextToImage.from_preset("scenes")
    model.generate("a cat left of a pizza", seed=7).save("cat.png")

Importing the package is cheap: every name below is looked up when it is first used, so that the command
line's help and the remote providers never wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pictura.lazy import lazy

__version__ = "0.1.0"

# public name -> module it lives in
_HOME = {
    "TextToImage": "pictura.task",
    "Request": "pictura.request",
    "Picture": "pictura.picture",
    "Pictures": "pictura.picture",
    "Step": "pictura.picture",
    "Preview": "pictura.picture",
    "Failure": "pictura.picture",
    "combinations": "pictura.text.wording",
    "PicturaError": "pictura.errors",
    "InputError": "pictura.errors",
    "ParameterError": "pictura.errors",
    "NotFound": "pictura.errors",
    "PresetError": "pictura.errors",
    "FileError": "pictura.errors",
    "CheckpointError": "pictura.errors",
    "ProviderError": "pictura.errors",
    "EngineError": "pictura.errors",
    "OutOfMemory": "pictura.errors",
    "TrainingError": "pictura.errors",
    "Cancelled": "pictura.errors",
}
_MODULES = ("errors", "families", "history", "presets", "providers", "samplers")

__all__ = ["__version__", *_HOME, *_MODULES]

if TYPE_CHECKING:
    from pictura.errors import (
        Cancelled,
        CheckpointError,
        EngineError,
        FileError,
        InputError,
        NotFound,
        OutOfMemory,
        ParameterError,
        PicturaError,
        PresetError,
        ProviderError,
        TrainingError,
    )
    from pictura.picture import Failure, Picture, Pictures, Preview, Step
    from pictura.request import Request
    from pictura.task import TextToImage
    from pictura.text.wording import combinations

_named, _ = lazy(__name__, _HOME)


def __getattr__(name: str) -> Any:
    return import_module(f"pictura.{name}") if name in _MODULES else _named(name)


def __dir__() -> list[str]:
    return sorted(__all__)
