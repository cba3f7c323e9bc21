"""Scorers choose the best of several pictures of one prompt (`generate(..., best_of=k)`).

A scorer is a module of this folder, or an entry point of the group `pictura.scorers`, with a function
`score(pictures) -> one number a picture`, higher is better. What chooses must not be what grades: the
built-in scorer is the trained detector, and reports grade by template matching (`checkers/template.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from pictura.discovery import found, loaded
from pictura.picture import Picture

__all__ = ["Scorer", "names", "scorer_named"]

Scorer = Callable[[Sequence[Picture]], Sequence[float]]


def names() -> tuple[str, ...]:
    """The scorers there are, without importing them."""
    return tuple(_all())


def scorer_named(name: str | None = None) -> Scorer:
    """Its `score`; without a name, the built-in detector's. Raises `ParameterError` for an unknown name."""
    return cast(Scorer, loaded("scorer", name or "scene_detector", _all()))


def _all() -> Mapping[str, str]:
    return found("evaluation.scorers", "score", group="pictura.scorers")
