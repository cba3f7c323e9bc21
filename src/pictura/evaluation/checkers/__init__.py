"""Checkers of scenes: each looks at pixels alone and says what stands where.

A checker is a module of this folder with a function `look(image) -> Sight`. None knows the caption: what
was asked is compared with what was seen in `pictura.evaluation.composition`, one text for all checkers.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pictura.errors import ParameterError, did_you_mean, shown

__all__ = ["Checker", "Sight", "Sighting", "checker_named", "names"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something at centre (`x`, `y`) on the 128 px canvas. `thing` indexes the vocabulary; None is a form
    that stands out from the background but is none of the 240 objects. `score` grows with certainty."""

    thing: int | None
    x: int
    y: int
    score: float


@dataclass(frozen=True, slots=True)
class Sight:
    """All that a checker sees. `background` is None when it is none of the eight colours."""

    things: tuple[Sighting, ...]
    background: str | None


Checker = Callable[[NDArray[np.uint8]], Sight]


@functools.cache
def names() -> tuple[str, ...]:
    """The checkers there are, by module name, without importing them."""
    return tuple(sorted(found.name for found in pkgutil.iter_modules(__path__)))


def checker_named(name: str) -> Checker:
    """Its `look`. Raises `ParameterError` for an unknown name."""
    if name not in names():
        raise ParameterError(
            f"checker {shown(name)} is unknown; {did_you_mean(str(name), names())}", parameter="checker"
        )
    look: Checker = importlib.import_module(f"{__name__}.{name}").look
    return look
