"""Schedules: which levels a sampler visits, as `num_steps` + 1 levels from noise to picture.

Each is a function (process, num_steps) -> levels, listed in `SCHEDULES`. Karras and exponential interpolate
between the process's largest and smallest sigma (sigma / alpha for VP and VE, sigma for flows).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import exp, log
from types import MappingProxyType

from pictura.discovery import unknown
from pictura.errors import ParameterError
from pictura.levels import CLEAN, Flow, Level, Process

Levels = tuple[Level, ...]
Schedule = Callable[[Process, int], Levels]


def own(process: Process, num_steps: int) -> Levels:
    """The process's own: its training steps, its rho, or its shift."""
    return process.levels(num_steps)


def karras(process: Process, num_steps: int, rho: float = 7.0) -> Levels:
    """Even steps in sigma^(1/rho) (Karras et al. 2022, eq. 5)."""
    high, low = process.ends(num_steps)
    start, end = high ** (1 / rho), low ** (1 / rho)
    return _visit(process, [(start + share * (end - start)) ** rho for share in _even(num_steps)])


def exponential(process: Process, num_steps: int) -> Levels:
    """Even steps in log(sigma)."""
    high, low = process.ends(num_steps)
    start, end = log(high), log(low)
    return _visit(process, [exp(start + share * (end - start)) for share in _even(num_steps)])


def sgm_uniform(process: Process, num_steps: int) -> Levels:
    """Even steps in time, the cleanest one left out (Stability's generative-models). For flows: their own."""
    if isinstance(process, Flow):
        return replace(process, last=None).levels(num_steps)
    high, low = process.ends(num_steps)
    start, end = process.time(process.from_sigma(high)), process.time(process.from_sigma(low))
    times = [start + i / num_steps * (end - start) for i in range(num_steps)]
    return (*(process.level(time) for time in times), CLEAN)


def flow_shift(shift: float) -> Schedule:
    """Even steps of a flow moved towards noise: after i of n, the picture's share is i / (i + shift (n - i)).

    `shift` above 0. Named "shift:4" where schedules are named. Only flows have it (ParameterError).
    """

    def moved(process: Process, num_steps: int) -> Levels:
        if not isinstance(process, Flow):
            raise ParameterError(
                "schedule 'shift' is for flow models and this model is not one; "
                f"choose one of {', '.join(SCHEDULES)}",
                parameter="schedule",
            )
        return replace(process, shift=shift).levels(num_steps)

    return moved


SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {"own": own, "karras": karras, "exponential": exponential, "sgm_uniform": sgm_uniform}
)


def named(name: str) -> Schedule:
    """The schedule called `name`: one of SCHEDULES or "shift:NUMBER" (ParameterError otherwise)."""
    kind, _, number = name.partition(":")
    if kind == "shift":
        return flow_shift(_positive(number))
    if name not in SCHEDULES:
        raise unknown("schedule", name, (*SCHEDULES, "shift:4"))
    return SCHEDULES[name]


def _positive(number: str) -> float:
    try:
        shift = float(number)
    except ValueError:
        shift = 0.0
    if not 0 < shift < 1e6:
        raise ParameterError(
            f"schedule 'shift:{number}' needs a number above 0 after the colon, as in 'shift:4'",
            parameter="schedule",
        )
    return shift


def _even(num_steps: int) -> list[float]:
    return [i / max(num_steps - 1, 1) for i in range(num_steps)]


def _visit(process: Process, sigmas: list[float]) -> Levels:
    return (*(process.from_sigma(sigma) for sigma in sigmas), CLEAN)
