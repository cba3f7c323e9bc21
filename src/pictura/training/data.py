"""Where training examples come from: a source answers example number `index`, the same every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pictura.datasets.scenes.stream import example
from pictura.errors import TrainingError

Source = Callable[[int], Mapping[str, Any]]


def scenes(*, split: str = "train", fixed_places: bool = False) -> Source:
    """The scenes data set, with each `Scene` as supervision."""

    def source(index: int) -> Mapping[str, Any]:
        e = example(index, split, fixed_places=fixed_places)
        return {"images": e.image(), "prompts": e.prompt, "scene": e.scene}

    return source


SOURCES: Mapping[str, Callable[..., Source]] = {"scenes": scenes}


def named(name: str, **options: Any) -> Source:
    """The source called `name`; TrainingError where there is none such."""
    if name not in SOURCES:
        raise TrainingError(f"data source {name!r} is unknown; use one of {', '.join(SOURCES)}")
    return SOURCES[name](**options)
