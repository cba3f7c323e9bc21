"""Metrics of a whole set of pictures. One metric is one file of this folder with a `METRIC`; packages outside
add theirs by the entry point group `pictura.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pictura.discovery import found, loaded

__all__ = ["Metric", "Sample", "metric_named", "names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a metric measures: generated pictures with their prompts, and real pictures to compare with.

    Pictures are (h, w, 3) uint8. `settings` holds what single metrics need, by name: "clip" and "reward",
    folders.
    """

    pictures: Sequence[NDArray[np.uint8]]
    prompts: Sequence[str]
    reference: Sequence[NDArray[np.uint8]]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """`needs` names the settings without which it cannot be measured; `least` is the fewest pictures."""

    help: str
    higher_is_better: bool
    measure: Callable[[Sample], float]
    needs: tuple[str, ...] = ()
    least: int = 2


def names() -> tuple[str, ...]:
    """The metrics there are, without importing them."""
    return tuple(_all())


def metric_named(name: str) -> Metric:
    """Raises `ParameterError` for an unknown name."""
    return cast(Metric, loaded("metric", name, _all()))


def _all() -> Mapping[str, str]:
    return found("evaluation.metrics", "METRIC", group="pictura.metrics")
