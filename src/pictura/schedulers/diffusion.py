"""Discrete diffusion schedules as diffusers computes them: betas, timesteps, sigmas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import cos, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pictura.errors import ParameterError, PresetError
from pictura.levels import CLEAN, VP, Level, on_curve
from pictura.samplers import schedules

__all__ = ["BY_TIME", "Visited", "alphas_cumprod", "visited"]

BY_TIME = ("ddim", "pndm", "lcm")  # their classes read whole training steps, the others sigmas
_ROUNDED = ("dpmpp_2m", "dpmpp_2m_sde", "unipc")  # their classes tell networks whole times

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Visited:
    """levels (n + 1) and the n times; see `schedulers.Plan`."""

    levels: tuple[Level, ...]
    times: tuple[float, ...]
    start: float
    landings: tuple[Level, ...] | None = None


def alphas_cumprod(chosen: Mapping[str, Any], *, for_sigmas: bool) -> tuple[float, ...]:
    """The cumulative products of 1 - beta in float32.

    With zero terminal SNR (Lin et al. 2023, algorithm 1) the last is 0, or 2^-24 where it becomes a sigma.
    """
    betas = _betas(chosen)
    if chosen.get("rescale_betas_zero_snr"):
        betas = _zero_terminal(betas)
    products = _cumprod(np.float32(1) - betas)
    if chosen.get("rescale_betas_zero_snr") and for_sigmas:
        products[-1] = np.float32(2.0**-24)
    return tuple(float(product) for product in products)


def visited(
    chosen: Mapping[str, Any], table: tuple[float, ...], num_steps: int, sampler: str, schedule: str
) -> Visited:
    """What `num_steps` steps of a sampler visit."""
    most = len(table)
    if num_steps > most:
        raise ParameterError(
            f"num_steps is {num_steps}; this model was trained on {most} steps, give at most so many",
            parameter="num_steps",
        )
    if schedule == "sgm_uniform":
        process = VP(alphas_cumprod=table)
        levels = schedules.sgm_uniform(process, num_steps)
        times = tuple(process.time(level) for level in levels[:-1])
        return Visited(levels=levels, times=times, start=levels[0].sigma)
    kind = _kind(chosen, schedule)
    if sampler in BY_TIME and kind is None:
        return _by_time(chosen, table, num_steps, sampler)
    return _by_sigma(chosen, table, num_steps, sampler, kind)


def _kind(chosen: Mapping[str, Any], schedule: str) -> str | None:
    """None, "karras", "exponential" or "lu": the request's schedule before the configuration's."""
    if schedule != "own":
        schedules.named(schedule)  # ParameterError for a name there is not
        if schedule.startswith("shift"):
            raise ParameterError(
                "schedule 'shift' is for flow models and this model is not one; "
                f"choose one of {', '.join(schedules.SCHEDULES)}",
                parameter="schedule",
            )
        return schedule
    keys = {"use_karras_sigmas": "karras", "use_lu_lambdas": "lu", "use_exponential_sigmas": "exponential"}
    return next((kind for key, kind in keys.items() if chosen.get(key)), None)


def _by_time(chosen: Mapping[str, Any], table: tuple[float, ...], num_steps: int, sampler: str) -> Visited:
    """DDIM and PNDM step `total // num_steps` back, wherever the next timestep is; LCM to the next."""
    total = len(table)
    if sampler == "lcm":
        times = _distilled(chosen, total, num_steps)
    else:
        times = np.round(_spaced(chosen, total, num_steps)).astype(np.int64)
    levels = [_at(table, int(time)) for time in times]
    end = CLEAN if chosen["set_alpha_to_one"] else _at(table, 0)
    if sampler == "lcm":
        end = CLEAN  # its last step takes the answer as it is
    landings = None
    if sampler == "ddim":
        before = [int(time) - total // num_steps for time in times]
        landings = tuple(_at(table, time) if time >= 0 else end for time in before)
        if landings[:-1] == tuple(levels[1:]):
            end, landings = landings[-1], None
    return Visited(
        levels=(*levels, end), times=tuple(float(time) for time in times), start=1.0, landings=landings
    )


def _by_sigma(
    chosen: Mapping[str, Any], table: tuple[float, ...], num_steps: int, sampler: str, kind: str | None
) -> Visited:
    total = len(table)
    products = np.asarray(table, np.float32)
    every = ((np.float32(1) - products) / products) ** np.float32(0.5)
    logs = np.log(every)
    multistep = sampler in _ROUNDED
    times = _extra_spaced(chosen, total, num_steps) if multistep else _spaced(chosen, total, num_steps)
    sigmas = np.interp(times, np.arange(total), every)
    if kind is not None:
        low, high = (every[0], every[-1]) if multistep else (sigmas[-1], sigmas[0])
        given = [chosen.get("sigma_min"), chosen.get("sigma_max")]
        low, high = (float(end if own is None else own) for own, end in zip(given, (low, high), strict=True))
        sigmas = _between(kind, low, high, num_steps)
        times = _times_of(sigmas, logs)
        if multistep and kind in ("karras", "lu"):
            cosine = chosen["beta_schedule"] == "squaredcos_cap_v2" and sampler != "unipc"
            times = times if cosine else times.round()
    if multistep:
        times = np.trunc(times)
    last = 0.0
    if chosen.get("final_sigmas_type") == "sigma_min":
        last = float(sigmas[-1]) if sampler == "unipc" and kind is not None else float(every[0])
    levels = [on_curve("vp", float(np.float32(sigma))) for sigma in sigmas]
    end = on_curve("vp", float(np.float32(last)))
    leading = chosen.get("timestep_spacing") == "leading"
    return Visited(
        levels=(*levels, end),
        times=tuple(float(np.float32(time)) for time in times),
        start=1.0 if multistep or leading else levels[0].sigma,
    )


def _at(table: tuple[float, ...], time: int) -> Level:
    product = table[min(time, len(table) - 1)]
    return Level(sqrt(product), sqrt(1.0 - product))


def _spaced(chosen: Mapping[str, Any], total: int, num_steps: int) -> Array:
    """Lin et al. 2023, table 2; noisiest first."""
    spacing = chosen.get("timestep_spacing", "leading")
    if spacing == "linspace":
        return np.linspace(0, total - 1, num_steps)[::-1].astype(np.float32)
    if spacing == "leading":
        return np.asarray(np.arange(num_steps)[::-1] * float(total // num_steps) + chosen["steps_offset"])
    return np.asarray(np.round(np.arange(total, 0, -total / num_steps)) - 1)


def _extra_spaced(chosen: Mapping[str, Any], total: int, num_steps: int) -> Array:
    """The multistep classes count the end as a step of its own, except for "trailing"."""
    clipped = chosen.get("lambda_min_clipped", float("-inf"))
    if clipped != float("-inf"):
        raise PresetError(f"scheduler setting lambda_min_clipped={clipped!r} is not supported")
    spacing = chosen["timestep_spacing"]
    if spacing == "linspace":
        return np.asarray(np.linspace(0, total - 1, num_steps + 1).round()[::-1][:-1])
    if spacing == "leading":
        ratio = total // (num_steps + 1)
        return np.asarray(np.arange(num_steps + 1)[::-1][:-1] * float(ratio) + chosen["steps_offset"])
    return np.asarray(np.round(np.arange(total, 0, -total / num_steps)) - 1)


def _distilled(chosen: Mapping[str, Any], total: int, num_steps: int) -> Array:
    """LCM visits some of the steps that it was distilled on (Luo et al. 2023, section 4.3)."""
    original = chosen["original_inference_steps"]
    if num_steps > original:
        raise ParameterError(
            f"num_steps is {num_steps}; sampler 'lcm' takes at most {original} with this model",
            parameter="num_steps",
        )
    steps = (np.arange(1, original + 1) * (total // original) - 1)[::-1]
    return np.asarray(steps[np.floor(np.linspace(0, original, num_steps, endpoint=False)).astype(np.int64)])


def _between(kind: str, low: float, high: float, num_steps: int) -> Array:
    ramp = np.linspace(0, 1, num_steps)
    if kind == "karras":  # Karras et al. 2022, eq. 5
        start, end = high ** (1 / 7), low ** (1 / 7)
        return np.asarray((start + ramp * (end - start)) ** 7)
    return np.asarray(np.exp(np.log(high) + ramp * (np.log(low) - np.log(high))))


def _times_of(sigmas: Array, logs: Array) -> Array:
    """Where log(sigma) falls among the training steps'."""
    return np.asarray(np.interp(np.log(np.maximum(sigmas, 1e-10)), logs, np.arange(len(logs))))


def _betas(chosen: Mapping[str, Any]) -> Array:
    steps, first, last = chosen["num_train_timesteps"], chosen["beta_start"], chosen["beta_end"]
    if chosen["trained_betas"] is not None:
        return np.asarray(chosen["trained_betas"], np.float32)
    if chosen["beta_schedule"] == "linear":
        return _linspace(first, last, steps)
    if chosen["beta_schedule"] == "scaled_linear":
        return np.asarray(_linspace(first**0.5, last**0.5, steps) ** np.float32(2))

    def bar(time: float) -> float:  # Nichol and Dhariwal 2021, eq. 17
        return cos((time + 0.008) / 1.008 * pi / 2) ** 2

    betas = [min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999) for i in range(steps)]
    return np.asarray(betas, np.float32)


def _linspace(first: float, last: float, steps: int) -> Array:
    """As torch counts in float32: from both ends to the middle."""
    start, end = np.float32(first), np.float32(last)
    step = (end - start) / np.float32(max(steps - 1, 1))
    at = np.arange(steps, dtype=np.float32)
    return np.where(at < steps // 2, start + step * at, end - step * (np.float32(steps - 1) - at))


def _zero_terminal(betas: Array) -> Array:
    roots = np.sqrt(_cumprod(np.float32(1) - betas))
    first, last = roots[0], roots[-1]
    bar = ((roots - last) * (first / (first - last))) ** np.float32(2)
    return np.asarray(np.float32(1) - np.concatenate([bar[:1], bar[1:] / bar[:-1]]))


def _cumprod(factors: Array) -> Array:
    """Each product rounded to float32, none of them carried on rounded."""
    return np.cumprod(factors.astype(np.float64)).astype(np.float32)
