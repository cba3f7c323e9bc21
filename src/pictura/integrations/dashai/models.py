"""Models of Pictura as DashAI's generative models.

DashAI makes a model anew for every process, in a worker process that lives long: what is loaded stays in it.
It tells its users why `generate` failed, but not why a model could not be made, so that all that can fail is
done in `generate`.
"""

from __future__ import annotations

import logging
import os
import re
from functools import lru_cache
from typing import Any, ClassVar

from pydantic import ValidationError

from pictura import presets
from pictura.errors import ParameterError, PicturaError, shown
from pictura.history import OFF, History
from pictura.history.recording import own_history
from pictura.task import TextToImage

from . import form
from .base import TextToImageModel
from .facts import Facts, facts
from .keeping import Drawn, Made, made

__all__ = ["Offered", "PicturaGanCls", "PicturaModel", "PicturaScenes", "offer"]

_log = logging.getLogger(__name__)


@lru_cache(maxsize=1)  # one, since large ones fill the memory
def loaded(preset: str) -> TextToImage:
    """The model, from memory where it was the last one asked for."""
    return TextToImage.from_preset(preset, history=False)  # its pictures are kept by process


class Offered(TextToImageModel):
    """What the offered models share. preset: which one; None where the user says it.

    history: where pictures are kept with parameters and seeds beside where DashAI puts them; None is
    nowhere. Without it the environment's PICTURA_HISTORY says "off", or it is the user's own history.
    """

    preset: ClassVar[str | None] = None
    COLOR: ClassVar[str] = "#3b6ea8"

    def __init__(self, **parameters: Any) -> None:
        try:
            self.parameters: dict[str, Any] = self.SCHEMA.model_validate(parameters).model_dump()
        except ValidationError as error:
            raise _readable(error) from error
        self.history: History | None = default_history()

    def generate(self, input: str) -> list[Drawn]:
        """The pictures of one prompt, those that could be made; the first error where there is none."""
        found = self.made(input)
        if found.errors and not found.images:
            raise found.errors[0]
        for error in found.errors:
            _log.warning("no picture of %.60r: %s", input, error)
        return found.images

    def made(self, input: str, *, strict: bool = False) -> Made:
        """What became of one prompt; see `keeping.made`. ParameterError where it can be no request."""
        said = dict(self.parameters)
        preset = self.preset or said.pop("model")
        requests = form.requests(input, said, model=preset, seeded=presets.remote(preset) is None)
        return made(self.history, requests, lambda: loaded(preset).stream(requests), strict=strict)


def _readable(error: ValidationError) -> ParameterError:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "parameters"
    return ParameterError(f"{name} is {shown(first['input'])}: {first['msg']}", parameter=name)


def default_history() -> History | None:
    """The user's own, unless PICTURA_HISTORY is "off"."""
    off = os.environ.get("PICTURA_HISTORY", "").lower() in OFF
    return None if off else own_history()


def offer(preset: str, title: str | None = None, description: str | None = None) -> type[Offered]:
    """A class for a preset, to be named in the entry points `dashai.plugins` of a package.

        Cats = pictura.integrations.dashai.offer("hf://me/cats", "Cats")

    The class has the name of the preset, which no other in DashAI may have. A preset that is not there yet is
    offered too, with what is known of it, and downloaded when it is first used.
    """
    name = "Pictura" + "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", preset) if part)
    try:
        known = facts(preset)
    except PicturaError as error:  # others are offered all the same, and this one says so when it is used
        _log.warning("what %s can do is not known: %s", shown(preset), error)
        known = Facts()
    return _offered(name, preset, known, title or f"Pictura: {preset}", description or known.description)


def _offered(name: str, preset: str | None, known: Facts, title: str, about: str) -> type[Offered]:
    content = {
        "preset": preset,
        "SCHEMA": form.schema(name, known, choose_model=preset is None),
        "DISPLAY_NAME": title,
        "DESCRIPTION": (about[:1].upper() + about[1:]) or title,
        "__module__": __name__,
        "__doc__": f"{title}, see `offer`.",
    }
    return type(name, (Offered,), content)


PicturaScenes = offer("scenes")
PicturaGanCls = offer("gan-cls")
PicturaModel = _offered(
    "PicturaModel", None, Facts(), "Pictura: any model",
    "Any model of Pictura by its name: built in, a folder, a file, of the hub, or behind a service.",
)  # fmt: skip
