"""Scorers choose the best of several pictures of one prompt (`generate(..., best_of=k)`).

A scorer is a module of this folder, or an entry point of the group `pictura.scorers`, with a function
`score(pictures) -> one number a picture`, higher is better; or a folder with a reward model, which
`pictura train --reward` makes of what people liked. What chooses must not be what grades: the
built-in scorer is the trained detector, and reports grade by template matching (`checkers/template.py`).
"""

from __future__ import annotations

import os
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
    """Its `score`; without a name, the built-in detector's; of a folder (a name wins, so write "./name") the
    reward model in it. Raises `ParameterError` for an unknown name, `FileError` or `CheckpointError` for a
    folder that holds no reward model."""
    if name and name not in _all() and (os.sep in name or os.path.isdir(name)):
        from pictura.evaluation.reward import Reward

        return Reward.load(name)
    return cast(Scorer, loaded("scorer", name or "scene_detector", _all()))


def _all() -> Mapping[str, str]:
    return found("evaluation.scorers", "score", group="pictura.scorers")
