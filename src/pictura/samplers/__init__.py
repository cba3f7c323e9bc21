"""Samplers, one a file: `euler.py` holds `euler`. Others come through the entry points `pictura.samplers`.

A sampler is a generator over local variables. It yields (x, level), receives x_0 and returns the last x:

    def heun(x, levels, noise, **options) -> Solver

`x` is (b, ...) at `levels[0]`; `levels` run from noise to picture, may begin at alpha = 0 and end at
sigma = 0; `noise()` draws standard normal numbers of x's shape from the picture's own generator.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Protocol, cast

from pictura.discovery import found, loaded
from pictura.errors import ParameterError
from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver

_NOT_SAMPLERS = ("schedules",)


class Sampler(Protocol):
    """What a sampler is: a function that gives a solver, see above."""

    def __call__(
        self, x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor], /, **options: float
    ) -> Solver: ...


def names() -> tuple[str, ...]:
    """Every sampler there is, sorted; imports none of them."""
    return tuple(found("samplers", skip=_NOT_SAMPLERS))


def load(name: str) -> Sampler:
    """The sampler called `name`; ParameterError with the nearest name when there is none."""
    return cast(Sampler, loaded("sampler", name, found("samplers", skip=_NOT_SAMPLERS)))


def options(name: str) -> Mapping[str, float]:
    """The options of a sampler and their defaults, e.g. {"eta": 0.0} for ddim."""
    parameters = inspect.signature(load(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


def evaluations(name: str, levels: Sequence[Level], **chosen: float) -> int:
    """How many times the sampler asks on these levels, counted by a dry run on one number."""
    dry = cast("Callable[..., Generator[tuple[float, Level], float, float]]", load(name))
    solver = dry(0.0, levels, lambda: 0.0, **chosen)
    count = 0
    try:
        next(solver)
        while True:
            count += 1
            solver.send(0.0)
    except StopIteration:
        return count


def check_options(name: str, chosen: Mapping[str, float]) -> None:
    """ParameterError when an option is not the sampler's."""
    known = options(name)
    for option in chosen:
        if option not in known:
            allowed = ", ".join(known) or "none"
            raise ParameterError(
                f"sampler {name!r} has no option {option!r}; its options: {allowed}", parameter=option
            )


class _Callable(ModuleType):
    """`pictura.samplers()` lists the names, and `pictura.samplers.euler` is still a module."""

    def __call__(self) -> tuple[str, ...]:
        return names()


sys.modules[__name__].__class__ = _Callable
