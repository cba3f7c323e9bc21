"""Plans from scheduler configurations against the classes of diffusers: times, levels, whole runs."""

from __future__ import annotations

import random

import diffusers
import numpy as np
import pytest
import torch
from problems import draws

from pictura import samplers, schedulers
from pictura.errors import ParameterError, PresetError
from pictura.schedulers.classes import BY_SAMPLER

BY_SIGMA = ("euler", "euler_ancestral", "heun", "dpmpp_sde")  # their classes hold x / alpha
SHAPE = (1, 2, 3, 5)
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}


def network(x, time):
    return torch.tanh(0.3 * x + 0.001 * time) + 0.2 * x


def ours(plan, begin=0, x=None, **options):
    noise = draws(SHAPE)
    first = plan.start * noise() if x is None else x
    solver = schedulers.solver(plan, first, noise, begin=begin, **options)
    asked = []
    try:
        x, level = next(solver)
        while True:
            asked.append(plan.time(level))
            x0 = plan.x0(x, level, network(x, plan.time(level)))
            x, level = solver.send(plan.consistent(x, level, x0))
    except StopIteration as done:
        return done.value, asked


def theirs(scheduler, num_steps, **set_timesteps):
    if set_timesteps.get("sigmas") is None:
        set_timesteps["num_inference_steps"] = num_steps
    scheduler.set_timesteps(**set_timesteps)
    noise = draws(SHAPE)
    x = noise() * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else noise()
    if isinstance(scheduler, diffusers.DPMSolverSDEScheduler):
        scheduler.noise_sampler = Path(draws(SHAPE))
        scheduler.noise_sampler.noise()
    rng = torch.Generator().manual_seed(0)
    torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        more = {"generator": rng} if "generator" in scheduler.step.__code__.co_varnames else {}
        if isinstance(scheduler, diffusers.DPMSolverMultistepScheduler):  # draws float32 otherwise
            variance = torch.randn(SHAPE, generator=rng, dtype=torch.float64)
            more = {"variance_noise": variance} if "sde" in scheduler.config.algorithm_type else {}
        answer = network(scaled, t.double())
        x = scheduler.step(answer, t, x.double(), **more).prev_sample
    return x, [float(t) for t in scheduler.timesteps]


class Path:
    """The increments of a Brownian path over sigma, drawn as ours are: to the middle, then on from it."""

    def __init__(self, noise):
        self.noise, self.first, self.middle = noise, None, None

    def __call__(self, sigma, next_sigma):
        if self.first is None:
            self.first, self.second, self.middle = self.noise(), self.noise(), next_sigma
            return self.first
        share = (sigma - self.middle) / (sigma - next_sigma)
        both = share**0.5 * self.first + (1 - share) ** 0.5 * self.second
        self.first = None
        return both


def close(left, right, tolerance=1e-5):
    left, right = torch.as_tensor(left).double(), torch.as_tensor(right).double()
    assert left.shape == right.shape
    scale = max(1.0, float(right.abs().max()))
    assert float((left - right).abs().max()) <= tolerance * scale


def drawn_config(sampler, seed):
    """A random configuration that the sampler's class accepts."""
    rng = random.Random(f"{sampler}/{seed}")
    config = dict(SD)
    if rng.random() < 0.3:
        config = {"beta_schedule": rng.choice(["linear", "squaredcos_cap_v2"])}
    config["prediction_type"] = rng.choice(["epsilon", "v_prediction"])
    if sampler not in ("euler_ancestral", "dpmpp_sde", "pndm") and rng.random() < 0.3:
        config["prediction_type"] = "sample"
    if sampler not in ("pndm", "lcm") and rng.random() < 0.8:
        config["timestep_spacing"] = rng.choice(["linspace", "leading", "trailing"])
    config["set_alpha_to_one"] = rng.random() < 0.5
    schedule = rng.choice(["own", "own", "use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas"])
    if config["beta_schedule"] == "squaredcos_cap_v2":
        schedule = "own"  # otherwise many steps share a timestep, which the classes mistake for each other
    if schedule != "own" and sampler in ("euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "dpmpp_sde"):
        config[schedule] = True
    if rng.random() < 0.3 and sampler != "heun":
        config["final_sigmas_type"] = rng.choice(["zero", "sigma_min"])
    # Other betas, rescaled, are noisier before the last step than in it: no schedule at all.
    rescalable = config["beta_schedule"] == "scaled_linear"
    if rng.random() < 0.3 and config["prediction_type"] == "v_prediction" and rescalable:
        config["rescale_betas_zero_snr"] = True
    if sampler in ("dpmpp_2m", "dpmpp_2m_sde", "unipc"):
        config["solver_order"] = rng.choice([1, 2, 2, 2] if sampler != "unipc" else [1, 2, 3])
    if sampler in ("dpmpp_2m", "dpmpp_2m_sde"):
        config["euler_at_final"], config["lower_order_final"] = rng.random() < 0.5, rng.random() < 0.7
    return config


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sampler", BY_SAMPLER)
def test_a_class_from_the_same_configuration(sampler, seed):
    config = drawn_config(sampler, seed)
    num_steps = random.Random(seed).choice([1, 2, 3, 4, 5, 7, 8, 10, 13, 16, 20, 25, 30, 50])
    given = {**config, "skip_prk_steps": True, "clip_sample": False}
    if sampler.startswith("dpmpp_2m"):
        given["algorithm_type"] = "dpmsolver++" if sampler == "dpmpp_2m" else "sde-dpmsolver++"
    scheduler = getattr(diffusers, BY_SAMPLER[sampler]).from_config(given)
    plan = schedulers.plan(config, num_steps, sampler=sampler)
    end, asked = ours(plan)
    wanted, times = theirs(scheduler, num_steps)
    close(asked, times, 1e-5)
    if sampler in BY_SIGMA:
        wanted = wanted * plan.levels[-1].alpha
    assert torch.isfinite(wanted).all()
    close(end, wanted, 2e-5)


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler", "LCMScheduler"])
def test_the_folder_s_own_class_is_the_default(name):
    config = {**SD, "_class_name": name, "skip_prk_steps": True, "set_alpha_to_one": False}
    plan = schedulers.plan(config, 6)
    given = {**config, "clip_sample": False}
    wanted, times = theirs(getattr(diffusers, name).from_config(given), 6)
    end, asked = ours(plan)
    close(asked, times)
    close(end, wanted)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 8, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_flows_of_stable_diffusion_3(name, shift, num_steps):
    config = {"_class_name": name, "shift": shift}
    if name.endswith("HeunDiscreteScheduler") and num_steps == 1:
        return  # the class repeats its only timestep
    plan = schedulers.plan(config, num_steps)
    end, asked = ours(plan)
    wanted, times = theirs(getattr(diffusers, name).from_config(config), num_steps)
    close(asked, times)
    close(end, wanted)


@pytest.mark.parametrize("num_steps", [1, 4, 11, 28])
@pytest.mark.parametrize("tokens", [16, 256, 1000, 4096, 9216])
def test_flows_of_flux(tokens, num_steps):
    rng = random.Random(tokens * num_steps)
    config = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "use_dynamic_shifting": rng.random() < 0.7,
        "base_shift": 0.5,
        "max_shift": rng.choice([1.15, 0.9]),
        "shift": rng.choice([1.0, 3.0]),
        "time_shift_type": rng.choice(["exponential", "linear"]),
        "shift_terminal": rng.choice([None, 0.1]) if num_steps > 1 else None,
        "use_karras_sigmas": rng.random() < 0.3,
    }
    slope = (config["max_shift"] - 0.5) / (4096 - 256)
    mu = tokens * slope + 0.5 - slope * 256
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    sigmas = list(np.linspace(1.0, 1 / num_steps, num_steps))
    wanted, times = theirs(scheduler, num_steps, sigmas=sigmas, mu=mu)
    end, asked = ours(schedulers.plan(config, num_steps, tokens=tokens, even=True))
    close(asked, times)
    close(end, wanted)


@pytest.mark.parametrize("num_steps", [2, 5, 20])
@pytest.mark.parametrize("sampler", ["dpmpp_2m", "dpmpp_2m_sde", "unipc"])
def test_multistep_classes_on_flows(sampler, num_steps):
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    given = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction"}
    if sampler == "dpmpp_2m_sde":
        given["algorithm_type"] = "sde-dpmsolver++"
    wanted, times = theirs(getattr(diffusers, BY_SAMPLER[sampler])(**given), num_steps)
    end, asked = ours(schedulers.plan(config, num_steps, sampler=sampler))
    close(asked, times)
    close(end, wanted, 2e-5)


@pytest.mark.parametrize("strength", [0.01, 0.3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("sampler", ["euler", "heun", "ddim", "dpmpp_2m", "unipc", "euler_ancestral"])
def test_beginning_later(sampler, strength):
    """As pictures are made from pictures: the last steps of the run, from a noised x."""
    config = {**SD, "timestep_spacing": "leading"}
    num_steps = 9
    begin = schedulers.begin_at(num_steps, strength)
    if begin == num_steps:
        return
    plan = schedulers.plan(config, num_steps, sampler=sampler)
    level = plan.levels[begin]
    noise, clean = draws(SHAPE, 3)(), torch.full(SHAPE, 0.3, dtype=torch.float64)
    end, asked = ours(plan, begin, level.alpha * clean + level.sigma * noise)

    scheduler = getattr(diffusers, BY_SAMPLER[sampler]).from_config({**config, "clip_sample": False})
    scheduler.set_timesteps(num_steps)
    first = begin * scheduler.order
    scheduler.set_begin_index(first) if hasattr(scheduler, "set_begin_index") else None
    x = scheduler.add_noise(clean, noise, scheduler.timesteps[first : first + 1])
    rng = torch.Generator().manual_seed(0)
    torch.randn(SHAPE, generator=rng, dtype=torch.float64)
    for t in scheduler.timesteps[first:]:
        answer = network(scheduler.scale_model_input(x, t), t.double())
        more = {"generator": rng} if sampler == "euler_ancestral" else {}
        x = scheduler.step(answer, t, x.double(), **more).prev_sample
    close(asked, [float(t) for t in scheduler.timesteps[first:]])
    if sampler != "euler_ancestral":  # whose draws are at other places of the stream
        close(end, x)


def test_a_schedule_beside_the_configuration():
    for kind in ("karras", "exponential"):
        scheduler = diffusers.EulerDiscreteScheduler.from_config({**SD, f"use_{kind}_sigmas": True})
        end, asked = ours(schedulers.plan(SD, 7, sampler="euler", schedule=kind))
        wanted, times = theirs(scheduler, 7)
        close(asked, times)
        close(end, wanted)
    uniform = schedulers.plan(SD, 7, sampler="ddim", schedule="sgm_uniform")
    assert len(uniform.levels) == 8 and uniform.levels[0] == uniform.process.level(999)
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    assert (
        schedulers.plan(flow, 4, schedule="shift:3", even=True).levels
        == schedulers.plan(flow, 4, even=True).levels
    )


def test_every_sampler_runs_on_every_configuration():
    configs = [SD, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}]
    for name in samplers.names():
        for config in configs:
            for schedule in ("own", "karras", "exponential", "sgm_uniform"):
                for num_steps in (1, 3):
                    plan = schedulers.plan(config, num_steps, sampler=name, schedule=schedule)
                    end, _ = ours(plan)
                    assert torch.isfinite(end).all() and len(plan.levels) == num_steps + 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"thresholding": True}, "thresholding"),
        ({"solver_order": 3}, "solver_order"),
        ({"solver_type": "heun"}, "solver_type"),
        ({"algorithm_type": "dpmsolver"}, "algorithm_type"),
        ({"use_beta_sigmas": True}, "use_beta_sigmas"),
        ({"prediction_type": "noise"}, "prediction_type"),
        ({"timestep_spacing": "even"}, "timestep_spacing"),
        ({"lambda_min_clipped": -5.1}, "lambda_min_clipped"),
    ],
)
def test_what_is_not_written_here_is_refused(config, words):
    with pytest.raises(PresetError, match=words):
        schedulers.plan({**SD, **config}, 4, sampler="dpmpp_2m")


def test_bad_requests_are_parameter_errors():
    cases = [
        ({"_class_name": "DEISMultistepScheduler"}, 4, {}, "no sampler here"),
        (SD, 1001, {"sampler": "ddim"}, "1000 steps"),
        (SD, 51, {"sampler": "lcm"}, "at most 50"),
        (SD, 4, {"sampler": "euler", "schedule": "shift:3"}, "for flow models"),
        (SD, 4, {"sampler": "euler", "schedule": "karas"}, "karras"),
    ]
    for config, num_steps, more, words in cases:
        with pytest.raises(ParameterError, match=words):
            schedulers.plan(config, num_steps, **more)
