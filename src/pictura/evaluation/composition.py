"""Compositional accuracy on scenes: is the picture what the caption asked for?

A checker says what stands where (`checkers/`), `parse` what was asked; `verdict` compares the two.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from pictura.datasets.scenes.grammar import OBJECT, Wish, parse

from .checkers import Sight, Sighting, checker_named


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is right about one picture. `relation`, `count` and `background` are None where the caption asks
    for none, so that a mean over the others is the accuracy of that category."""

    identity: float  # share of the asked objects found anywhere
    exact: bool  # everything asked is right and nothing else stands there
    relation: bool | None
    count: bool | None
    background: bool | None
    sight: Sight


def judge(image: Any, prompt: str, *, checker: str = "template") -> Verdict:
    """Judge `image`, uint8 (h, w, 3) or anything that converts to it, against the scene caption `prompt`.

    `checker` is one of `checkers.names()`: "template" or "detector". Raises `CaptionError` when `prompt` is
    no scene caption and `ParameterError` when the checker is unknown.
    """
    wish = parse(prompt)
    return verdict(wish, checker_named(checker)(np.asarray(image, dtype=np.uint8)))


def verdict(wish: Wish, sight: Sight) -> Verdict:
    """Compare what was asked with what was seen."""
    asked = Counter(wish.objects * wish.number)
    seen = Counter(s.thing for s in sight.things)
    identity = sum(min(n, seen[o]) for o, n in asked.items()) / asked.total()
    complete = seen == asked
    relation = complete and _stand(wish, sight.things) if wish.kind == "relation" else None
    count = complete if wish.kind == "count" else None
    background = None if wish.background is None else sight.background == wish.background
    exact = complete and relation is not False and background is not False
    return Verdict(identity, exact, relation, count, background, sight)


def _stand(wish: Wish, things: tuple[Sighting, ...]) -> bool:
    """Whether the two things stand as asked: an object's side or nearly so apart on the relation's axis, and
    farther apart on it than on the other."""
    first, second = (next(t for t in things if t.thing == o) for o in wish.objects)
    dx, dy = second.x - first.x, second.y - first.y
    along, across = {"left": (dx, dy), "right": (-dx, dy), "above": (dy, dx), "below": (-dy, dx)}[
        wish.relation
    ]
    return along >= OBJECT * 3 // 4 and along > abs(across)
