"""Schedules of rectified flows as diffusers computes them: shifts, and which sigmas a class starts from."""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pictura.levels import CLEAN, Level, shifted
from pictura.samplers import schedules

__all__ = ["STEPS", "dynamic_shift", "levels"]

STEPS = 1000.0  # what a flow's sigma is multiplied with to be a time

Array = NDArray[Any]


def levels(
    chosen: Mapping[str, Any], num_steps: int, sampler: str, schedule: str, tokens: int, even: bool
) -> tuple[tuple[Level, ...], dict[Level, float]]:
    """(n + 1 levels, the time of each but the last)."""
    total = chosen["num_train_timesteps"]
    shift = chosen["shift"]
    if chosen["use_dynamic_shifting"]:
        mu = dynamic_shift(chosen, tokens)
        shift = exp(mu) if chosen["time_shift_type"] == "exponential" else mu
    if schedule.startswith("shift:"):
        schedules.named(schedule)  # ParameterError where the number is none
        shift = float(schedule.partition(":")[2])
    whole = sampler in ("dpmpp_2m", "dpmpp_2m_sde", "unipc")
    if whole:  # their classes stop before both ends and tell networks whole times
        sigmas = _shift(_multistep(total, num_steps, sampler), shift)
        if sampler == "unipc" and abs(sigmas[0] - 1) < 1e-6:
            sigmas[0] -= 1e-6
    else:
        static = not chosen["use_dynamic_shifting"]
        ends = (1.0, 1 / num_steps) if even else _ends(total, shift if static else None)
        sigmas = _shift(np.linspace(*ends, num_steps), shift)
        if chosen["shift_terminal"]:
            sigmas = 1 - (1 - sigmas) * (1 - chosen["shift_terminal"]) / (1 - sigmas[-1])
    if schedule == "sgm_uniform":
        sigmas = np.array([1 - i / num_steps for i in range(num_steps)])
    sigmas = _rescheduled(sigmas, chosen, schedule, num_steps).astype(np.float32)
    times = np.trunc(sigmas * total) if whole else sigmas * np.float32(total)
    visited = [Level(1.0 - float(sigma), float(sigma)) for sigma in sigmas]
    return (*visited, CLEAN), {level: float(time) for level, time in zip(visited, times, strict=True)}


def dynamic_shift(chosen: Mapping[str, Any], tokens: int) -> float:
    """mu, linear in the length of the picture's sequence (FLUX)."""
    low, high = chosen["base_image_seq_len"], chosen["max_image_seq_len"]
    slope = (chosen["max_shift"] - chosen["base_shift"]) / (high - low)
    return float(tokens * slope + chosen["base_shift"] - slope * low)


def _ends(total: int, shift: float | None) -> tuple[float, float]:
    """The class's own ends are shifted once before all sigmas are: Stable Diffusion 3's double shift."""
    last = float(np.float32(1.0 / total))
    return 1.0, last if shift is None else float(np.float32(shifted(last, shift)))


def _multistep(total: int, num_steps: int, sampler: str) -> Array:
    if sampler == "unipc":
        return np.linspace(1, 1 / total, num_steps + 1)[:-1]
    return np.flip(1.0 - np.linspace(1, 1 / total, num_steps + 1))[:-1].copy()


def _shift(sigmas: Array, shift: float) -> Array:
    return np.asarray(shift * sigmas / (1 + (shift - 1) * sigmas))


def _rescheduled(sigmas: Array, chosen: Mapping[str, Any], schedule: str, num_steps: int) -> Array:
    """Karras or exponential steps between the ends there are."""
    if schedule == "own":
        kinds = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential"}
        schedule = next((kind for key, kind in kinds.items() if chosen.get(key)), "own")
    high, low, ramp = float(sigmas[0]), float(sigmas[-1]), np.linspace(0, 1, num_steps)
    if schedule == "karras":
        start, end = high ** (1 / 7), low ** (1 / 7)
        return np.asarray((start + ramp * (end - start)) ** 7)
    if schedule == "exponential":
        return np.asarray(np.exp(np.log(high) + ramp * (np.log(low) - np.log(high))))
    schedules.named(schedule)  # ParameterError for a name there is not
    return sigmas
