"""Exactly solvable problems: data with a known density, hence a known denoiser at every level."""

from __future__ import annotations

import math

import torch

from pictura import samplers
from pictura.levels import Level, on_curve

CURVES = ("ve", "vp", "flow")


def gaussian(x, level, mean=0.7, std=0.4):
    """E[x_0 | x] for x_0 ~ N(mean, std^2)."""
    variance = level.alpha**2 * std**2 + level.sigma**2
    return mean + level.alpha * std**2 / variance * (x - level.alpha * mean)


def draws(shape, seed=0):
    """Noise as a scheduler draws it from `torch.Generator(seed)`, one call a draw."""
    rng = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=rng, dtype=torch.float64)


MEANS = torch.tensor([-1.0, 0.5], dtype=torch.float64)
STDS = torch.tensor([0.3, 0.5], dtype=torch.float64)
SHARES = torch.tensor([0.4, 0.6], dtype=torch.float64)


def mixture(x, level):
    """E[x_0 | x] for the mixture of two Gaussians above, element by element."""
    variance = level.alpha**2 * STDS**2 + level.sigma**2
    off = x[..., None] - level.alpha * MEANS
    share = torch.softmax(SHARES.log() - off**2 / (2 * variance) - variance.log() / 2, -1)
    return (share * (MEANS + level.alpha * STDS**2 / variance * off)).sum(-1)


def mixture_cdf(x):
    return (SHARES * 0.5 * (1 + torch.erf((x[..., None] - MEANS) / STDS / math.sqrt(2)))).sum(-1)


def gaussian_flow(x, level, mean=0.7, std=0.4):
    """The consistency function of the Gaussian: where the probability-flow ODE ends from x."""
    spread = math.sqrt(level.alpha**2 * std**2 + level.sigma**2)
    return mean + std / spread * (x - level.alpha * mean)


def geometric(curve, num_steps, first=20.0, last=0.05):
    """Levels with sigma / alpha falling by one factor a step, ending above sigma = 0."""
    return [on_curve(curve, first * (last / first) ** (i / num_steps)) for i in range(num_steps + 1)]


def run(name, x, levels, denoise, noise=None, **options):
    """Drive a sampler directly: the last x, and every (x, level) it asked about."""
    solver = samplers.load(name)(x, levels, noise, **options)
    asked: list[tuple[torch.Tensor, Level]] = []
    try:
        asked.append(next(solver))
        while True:
            asked.append(solver.send(denoise(*asked[-1])))
    except StopIteration as done:
        return done.value, asked
