"""Which levels a model's files mean: from the scheduler configuration that diffusers writes to a plan.

A folder's `scheduler_config.json` names a class and says how the model was trained. A sampler name on such a
folder means the class of that name, built from the same configuration, with that class's own defaults for
what the file lacks; no name means the folder's own class. The numbers, float32 tables included, are those of
diffusers. Two of its habits are not kept, since they only harm: latents are never clipped (`clip_sample`),
and pndm always begins with the multistep form (`skip_prk_steps`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import TYPE_CHECKING, Any

from pictura import samplers
from pictura.levels import VP, Level
from pictura.schedulers import diffusion, flow
from pictura.schedulers.classes import Settings, is_flow, own_sampler, settings

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver

__all__ = ["Plan", "Settings", "begin_at", "is_flow", "own_sampler", "plan", "solver", "training"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run of so many steps visits.

    levels: n + 1, noisiest first. times: what the network is told at each. start: x begins as so much of the
    first noise. prediction: what the network answers, "epsilon", "v_prediction", "sample" or "flow".
    landings: where each step ends, for the class whose steps do not end where the next begins.
    consistency: LCM's `timestep_scaling`, where answers are to be scaled so.
    """

    sampler: str
    levels: tuple[Level, ...]
    times: Mapping[Level, float]
    start: float
    prediction: str
    options: Mapping[str, float] = field(default_factory=dict)
    process: VP | None = None
    landings: tuple[Level, ...] | None = None
    consistency: float | None = None

    def time(self, level: Level) -> float:
        """The network's time at `level`, also at one between those that are listed."""
        known = self.times.get(level)
        if known is not None:
            return known
        if self.process is not None:
            return self.process.time(level)
        return level.sigma * flow.STEPS

    def x0(self, x: Tensor, level: Level, answer: Tensor) -> Tensor:
        """The clean picture that a network's `answer` at (x, level) stands for.

        Salimans and Ho 2022, eq. 9 and appendix D: v = alpha * noise - sigma * x_0; a flow answers
        noise - x_0.
        """
        if self.prediction == "flow":
            return x - level.sigma * answer
        if self.prediction == "v_prediction":
            return level.alpha * x - level.sigma * answer
        if self.prediction == "sample":
            return answer
        return (x - level.sigma * answer) / level.alpha

    def consistent(self, x: Tensor, level: Level, x0: Tensor) -> Tensor:
        """Luo et al. 2023, eq. 9: the boundary scaling of a consistency function, with sigma_data 0.5."""
        if self.consistency is None:
            return x0
        time = self.consistency * self.time(level)
        skip, out = 0.25 / (time**2 + 0.25), time / sqrt(time**2 + 0.25)
        return skip * x + out * x0


def plan(
    config: Mapping[str, Any],
    num_steps: int,
    *,
    sampler: str | None = None,
    schedule: str = "own",
    tokens: int = 4096,
    even: bool = False,
) -> Plan:
    """The plan of `num_steps` steps by a scheduler configuration.

    schedule: "own" is what the configuration says, others are `samplers.schedules`. For flows, `tokens` is
    the length of the picture's sequence (dynamic shifting), and `even` starts from sigmas 1 to 1/n, as FLUX
    does, instead of the class's own ends. ParameterError for what the sampler cannot do.
    """
    name = sampler or own_sampler(config)
    chosen = settings(config, name)
    if is_flow(config):
        levels, times = flow.levels(chosen, num_steps, name, schedule, tokens, even)
        return Plan(sampler=name, levels=levels, times=times, start=1.0, prediction="flow")
    table = diffusion.alphas_cumprod(chosen, for_sigmas=name not in diffusion.BY_TIME)
    visited = diffusion.visited(chosen, table, num_steps, name, schedule)
    options: dict[str, float] = {}
    if name in ("dpmpp_2m", "dpmpp_2m_sde"):
        early = chosen["euler_at_final"] or (chosen["lower_order_final"] and num_steps < 15)
        options = {"order": chosen["solver_order"], "final_order": 1 if early else chosen["solver_order"]}
    elif name == "unipc":
        options = {"order": chosen["solver_order"]}
    elif name == "pndm":
        options = {"velocity": int(chosen["prediction_type"] == "v_prediction")}
    return Plan(
        sampler=name,
        levels=visited.levels,
        times=dict(zip(visited.levels, visited.times, strict=False)),
        start=visited.start,
        prediction=chosen["prediction_type"],
        options=options,
        process=VP(alphas_cumprod=table),
        landings=visited.landings,
        consistency=chosen["timestep_scaling"] if name == "lcm" else None,
    )


def solver(plan: Plan, x: Tensor, noise: Callable[[], Tensor], *, begin: int = 0, **options: float) -> Solver:
    """The plan's sampler from level `begin` on; x is at that level already."""
    run = samplers.load(plan.sampler)
    own = {**plan.options, **options}
    if plan.landings is None:
        return run(x, plan.levels[begin:], noise, **own)
    hops = list(zip(plan.levels[begin:], plan.landings[begin:], strict=False))
    return _hops(run, x, hops, noise, own)


def begin_at(num_steps: int, strength: float) -> int:
    """The first step of a run that keeps 1 - `strength` of a given picture; the last `strength` are made."""
    return num_steps - min(int(num_steps * strength), num_steps)


def training(config: Mapping[str, Any]) -> VP | None:
    """The process that the model was trained with; None for a flow."""
    if is_flow(config):
        return None
    return VP(alphas_cumprod=diffusion.alphas_cumprod(settings(config, "ddim"), for_sigmas=False))


def _hops(
    run: samplers.Sampler,
    x: Tensor,
    hops: list[tuple[Level, Level]],
    noise: Callable[[], Tensor],
    options: Mapping[str, float],
) -> Solver:
    for now, then in hops:
        x = yield from run(x, (now, then), noise, **options)
    return x
