"""Which prompts a model is evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count as counting

import numpy as np
from numpy.typing import NDArray

from pictura.datasets.scenes.stream import Example, example
from pictura.errors import ParameterError, did_you_mean, shown

__all__ = ["SUITES", "Case", "suite_named"]


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt. `category` is its row of the report; `real` a true picture of such a prompt."""

    prompt: str
    category: str
    real: NDArray[np.uint8]


def scenes(count: int) -> list[Case]:
    """`count` prompts of each category, the first of the numbered splits, told in the basic phrasing.

    Drawn from the grammar: "validation" for single objects, relations and counts, "held-out" for relations of
    objects that training never saw so. The same prompts for every model.
    """
    wanted = {"single": "single object", "relation": "relation", "count": "count"}
    left = dict.fromkeys(wanted, count)
    cases = []
    for index in counting():
        if not any(left.values()):
            break
        drawn = example(index, "validation", basic=True)
        if left[drawn.scene.kind]:
            left[drawn.scene.kind] -= 1
            cases.append(_case(drawn, wanted[drawn.scene.kind]))
    cases.sort(key=lambda case: list(wanted.values()).index(case.category))
    held_out = (example(index, "held-out", basic=True) for index in range(count))
    return cases + [_case(drawn, "held-out relation") for drawn in held_out]


def _case(drawn: Example, category: str) -> Case:
    return Case(drawn.prompt, category, drawn.image())


SUITES: Mapping[str, Callable[[int], list[Case]]] = {"scenes": scenes}


def suite_named(name: str) -> Callable[[int], list[Case]]:
    """Raises `ParameterError` for an unknown name."""
    if name not in SUITES:
        raise ParameterError(
            f"suite {shown(name)} is unknown; {did_you_mean(str(name), SUITES)}", parameter="suite"
        )
    return SUITES[name]
