"""Where training examples come from: a source answers example number `index`, the same every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from pictura.datasets.scenes.stream import example
from pictura.errors import TrainingError
from pictura.training.examples import Data, read

Source = Callable[[int], Mapping[str, Any]]


def scenes(*, split: str = "train", fixed_places: bool = False) -> Source:
    """The scenes data set, with each `Scene` as supervision."""

    def source(index: int) -> Mapping[str, Any]:
        e = example(index, split, fixed_places=fixed_places)
        return {"images": e.image(), "prompts": e.prompt, "scene": e.scene}

    return source


def folder(*, path: str, pairs: bool = False, size: tuple[int, int] | None = None) -> Source:
    """Captioned pictures of a folder, or pairs of them (`training.examples`), in another order every time all
    have been seen. size: what they are scaled and cropped to."""
    data = _opened(Path(path), pairs, None if size is None else (size[0], size[1]))

    def source(index: int) -> Mapping[str, Any]:
        epoch, at = divmod(index, len(data))
        return next(data.batches(1, [_order(len(data), epoch)[at]]))[0]

    return source


@cache  # a source is asked for at every step
def _opened(path: Path, pairs: bool, size: tuple[int, int] | None) -> Data:
    return read(path, size=size, pairs=pairs)


@cache
def _order(count: int, epoch: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(epoch)).tolist()
    return order


SOURCES: Mapping[str, Callable[..., Source]] = {"scenes": scenes, "folder": folder}


def named(name: str, **options: Any) -> Source:
    """The source called `name`; TrainingError where there is none such."""
    if name not in SOURCES:
        raise TrainingError(f"data source {name!r} is unknown; use one of {', '.join(SOURCES)}")
    return SOURCES[name](**options)
