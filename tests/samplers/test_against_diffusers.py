"""Number for number against the schedulers of diffusers, with the same answers and the same noise."""

from __future__ import annotations

import math

import diffusers
import pytest
import torch
from problems import draws, mixture, run

from pictura.levels import VP, Flow, Level, linear, scaled_linear
from pictura.samplers import schedules

TRAINED = scaled_linear()
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
X = torch.linspace(-2, 2, 7, dtype=torch.float64).reshape(1, 1, 1, 7)


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-5, atol=1e-5)


def drive(scheduler, num_steps, level_of, answer, x, scale=lambda level: 1.0, **step):
    """A scheduler's own loop: `answer(x0, x, level)` is what its network would have said."""
    scheduler.set_timesteps(num_steps)
    for i, t in enumerate(scheduler.timesteps):
        level = level_of(scheduler, i, t)
        x0 = mixture(x * scale(level), level)
        x = scheduler.step(answer(x0, x * scale(level), level), t, x, **step).prev_sample
    return x


def clean(x0, x, level):
    return x0


def epsilon(x0, x, level):
    return (x - level.alpha * x0) / level.sigma


def velocity(x0, x, level):
    return (x - x0) / level.sigma  # of a flow: noise - x_0


def vp_at(scheduler, i, t):
    product = scheduler.alphas_cumprod[int(t)].item()
    return Level(math.sqrt(product), math.sqrt(1 - product))


def vp_by_sigma(scheduler, i, t):
    ratio = scheduler.sigmas[i].item()
    return Level(1 / math.sqrt(1 + ratio**2), ratio / math.sqrt(1 + ratio**2))


def flow_by_sigma(scheduler, i, t):
    sigma = scheduler.sigmas[i].item()
    return Level(1 - sigma, sigma)


def by_alpha(level):
    return level.alpha  # these schedulers hold x / alpha


SPACINGS = [("leading", 0), ("leading", 1), ("trailing", 0)]


@pytest.mark.parametrize(("spacing", "offset"), SPACINGS)
def test_euler(spacing, offset):
    theirs = diffusers.EulerDiscreteScheduler(
        **BETAS, timestep_spacing=spacing, steps_offset=offset, prediction_type="sample"
    )
    levels = VP(alphas_cumprod=TRAINED, spacing=spacing, offset=offset).levels(8)
    x = X * levels[0].sigma
    ours, _ = run("euler", x, levels, mixture)
    close(ours, drive(theirs, 8, vp_by_sigma, clean, x / levels[0].alpha, by_alpha))


@pytest.mark.parametrize("kind", ["karras", "exponential"])
def test_schedules(kind):
    """Levels and result with the scheduler's own Karras and exponential schedules over the whole range."""
    theirs = diffusers.EulerDiscreteScheduler(
        **BETAS, timestep_spacing="linspace", **{f"use_{kind}_sigmas": True}, prediction_type="sample"
    )
    levels = schedules.named(kind)(VP(alphas_cumprod=TRAINED), 9)
    x = X * levels[0].sigma
    ours, _ = run("euler", x, levels, mixture)
    close(ours, drive(theirs, 9, vp_by_sigma, clean, x / levels[0].alpha, by_alpha))
    close(torch.tensor([level.ratio for level in levels], dtype=torch.float64), theirs.sigmas)


@pytest.mark.parametrize("kind", [None, "karras"])
def test_heun(kind):
    options = {"use_karras_sigmas": True} if kind else {}
    theirs = diffusers.HeunDiscreteScheduler(
        **BETAS, timestep_spacing="trailing" if not kind else "linspace", prediction_type="sample", **options
    )
    levels = schedules.named(kind or "own")(VP(alphas_cumprod=TRAINED), 7)
    x = X * levels[0].sigma
    ours, asked = run("heun", x, levels, mixture)
    theirs.set_timesteps(7)
    assert len(asked) == len(theirs.timesteps) == 13
    # Its sigmas are listed per evaluation: s0 s1 s1 s2 s2 ...; every second evaluation is at the next level.
    visited = [levels[(i + 1) // 2] for i in range(13)]
    close(ours, drive(theirs, 7, lambda s, i, t: visited[i], clean, x / levels[0].alpha, by_alpha))


@pytest.mark.parametrize("to_zero", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(eta, to_zero):
    theirs = diffusers.DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=to_zero, steps_offset=1, timestep_spacing="leading"
    )
    levels = VP(alphas_cumprod=TRAINED, spacing="leading", offset=1, to_zero=to_zero).levels(8)
    x = X * levels[0].sigma
    ours, _ = run("ddim", x, levels, mixture, draws(X.shape), eta=eta)
    rng = torch.Generator().manual_seed(0)
    if to_zero and eta > 0:
        # The scheduler takes the last variance from step 0 even when it ends at alpha = 1; compare before it.
        ours = run("ddim", x, levels[:-1], mixture, draws(X.shape), eta=eta)[0]
        theirs.set_timesteps(8)
        steps = list(theirs.timesteps[:-1])
        end = x
        for t in steps:
            level = vp_at(theirs, 0, t)
            end = theirs.step(
                epsilon(mixture(end, level), end, level), t, end, eta=eta, generator=rng
            ).prev_sample
        close(ours, end)
    else:
        close(ours, drive(theirs, 8, vp_at, epsilon, x, eta=eta, generator=rng))


def test_euler_ancestral():
    theirs = diffusers.EulerAncestralDiscreteScheduler(
        **BETAS, timestep_spacing="trailing", prediction_type="epsilon"
    )
    levels = VP(alphas_cumprod=TRAINED).levels(9)
    x = X * levels[0].sigma
    ours, _ = run("euler_ancestral", x, levels, mixture, draws(X.shape, 3))
    rng = torch.Generator().manual_seed(3)
    close(ours, drive(theirs, 9, vp_by_sigma, epsilon, x / levels[0].alpha, by_alpha, generator=rng))


@pytest.mark.parametrize("kind", ["own", "karras"])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_dpmpp_multistep(algorithm, kind):
    theirs = diffusers.DPMSolverMultistepScheduler(
        **BETAS, timestep_spacing="trailing", algorithm_type=algorithm, use_karras_sigmas=kind == "karras"
    )
    levels = schedules.named(kind)(VP(alphas_cumprod=TRAINED), 8)
    x = X * levels[0].sigma
    name = "dpmpp_2m" if algorithm == "dpmsolver++" else "dpmpp_2m_sde"
    ours, _ = run(name, x, levels, mixture, draws(X.shape, 5))
    draw = draws(X.shape, 5)
    theirs.set_timesteps(8)
    end = x
    for i, t in enumerate(theirs.timesteps):
        level = vp_by_sigma(theirs, i, t)
        answer = epsilon(mixture(end, level), end, level)
        noise = draw() if "sde" in algorithm and i < 7 else torch.zeros_like(x)
        end = theirs.step(answer, t, end, variance_noise=noise).prev_sample
    close(ours, end)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(order):
    theirs = diffusers.UniPCMultistepScheduler(**BETAS, timestep_spacing="trailing", solver_order=order)
    levels = VP(alphas_cumprod=TRAINED).levels(9)
    x = X * levels[0].sigma
    ours, _ = run("unipc", x, levels, mixture, order=order)
    close(ours, drive(theirs, 9, vp_by_sigma, epsilon, x))


@pytest.mark.parametrize(
    ("name", "theirs"), [("dpmpp_2m", "DPMSolverMultistep"), ("unipc", "UniPCMultistep")]
)
def test_multistep_on_a_flow(name, theirs):
    scheduler = getattr(diffusers, f"{theirs}Scheduler")(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    scheduler.set_timesteps(8)
    levels = [Level(1 - sigma, sigma) for sigma in scheduler.sigmas.double().tolist()]
    ours, _ = run(name, X, levels, mixture)
    close(ours, drive(scheduler, 8, flow_by_sigma, velocity, X))


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize(("name", "theirs"), [("euler", "Euler"), ("heun", "Heun")])
def test_flow_matching(name, theirs, shift):
    scheduler = getattr(diffusers, f"FlowMatch{theirs}DiscreteScheduler")(shift=shift)
    scheduler.set_timesteps(8)
    sigmas = scheduler.sigmas.double().tolist()
    levels = [Level(1 - s, s) for s in (sigmas if name == "euler" else [*sigmas[:1], *sigmas[1::2]])]
    ours, asked = run(name, X, levels, mixture)
    visited = [level for _, level in asked]
    close(ours, drive(scheduler, 8, lambda s, i, t: visited[i], velocity, X))


@pytest.mark.parametrize("shift", [1.0, 2.5])
def test_flow_schedule(shift):
    """FLUX's steps are ours; Stable Diffusion 3's end at a thousandth, shifted once more."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1 - i / 8 for i in range(8)])
    ours = [level.sigma for level in Flow(shift=shift).levels(8)]
    close(torch.tensor(ours, dtype=torch.float64), scheduler.sigmas)
    scheduler.set_timesteps(8)
    last = shift * 0.001 / (1 + (shift - 1) * 0.001)
    ours = [level.sigma for level in Flow(shift=shift, last=last).levels(8)]
    close(torch.tensor(ours, dtype=torch.float64), scheduler.sigmas)


@pytest.mark.parametrize("shift", [1.0, 4.0, 16.0])
def test_shifted_steps(shift):
    """The recipe of the built-in model writes the same steps as t_i = i / (i + s (n - i))."""
    levels = schedules.named(f"shift:{shift}")(Flow(), 12)
    for i, level in enumerate(levels):
        assert level.alpha == pytest.approx(i / (i + shift * (12 - i)), abs=1e-12)


def test_lcm():
    theirs = diffusers.LCMScheduler(timestep_scaling=10.0)
    theirs.set_timesteps(4)
    times = theirs.timesteps.tolist()
    levels = [vp_at(theirs, 0, t) for t in times] + [Level(1.0, 0.0)]

    def consistency(x, level):
        """The boundary scaling of Luo et al. 2023 around the denoiser."""
        time = 10.0 * times[levels.index(level)]
        skip, out = 0.25 / (time**2 + 0.25), time / math.sqrt(time**2 + 0.25)
        return skip * x + out * mixture(x, level)

    ours, _ = run("lcm", X, levels, consistency, draws(X.shape, 2))
    close(ours, drive(theirs, 4, vp_at, epsilon, X, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize(
    ("products", "betas"),
    [(scaled_linear, "scaled_linear"), (lambda: linear(1000, 0.00085, 0.012), "linear")],
)
def test_trained_betas(products, betas):
    theirs = diffusers.DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule=betas)
    close(torch.tensor(products(), dtype=torch.float64), theirs.alphas_cumprod)


def test_cosine_betas():
    from pictura.levels import cosine

    theirs = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2")
    close(torch.tensor(cosine(), dtype=torch.float64), theirs.alphas_cumprod)
