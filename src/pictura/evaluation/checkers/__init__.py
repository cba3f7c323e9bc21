"""Checkers of scenes: each looks at pixels alone and says what stands where.

A checker is a module of this folder with a function `look(image) -> Sight`. None knows the caption: what
was asked is compared with what was seen in `pictura.evaluation.composition`, one text for all checkers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pictura.discovery import found, loaded

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


def names() -> tuple[str, ...]:
    """The checkers there are, without importing them."""
    return tuple(_all())


def checker_named(name: str) -> Checker:
    """Its `look`. Raises `ParameterError` for an unknown name."""
    return cast(Checker, loaded("checker", name, _all()))


def _all() -> Mapping[str, str]:
    return found("evaluation.checkers", "look", group="pictura.checkers")
