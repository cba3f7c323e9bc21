"""Where the stochastic samplers end: the distribution of the data, not just its mean."""

from __future__ import annotations

import math

import pytest
import torch
from problems import CURVES, draws, gaussian, gaussian_flow, geometric, mixture, mixture_cdf, run

from pictura.levels import CLEAN

COUNT = 20_000
STOCHASTIC = [
    ("ddim", {"eta": 1.0}, 300),
    ("ddim", {"eta": 0.5}, 300),
    ("euler_ancestral", {}, 300),
    ("dpmpp_2m_sde", {}, 60),
    ("dpmpp_2m_sde", {"eta": 0.5}, 60),
    ("dpmpp_sde", {}, 40),
    ("dpmpp_sde", {"eta": 0.5}, 40),
]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(("name", "options", "num_steps"), STOCHASTIC)
def test_mixture(name, options, num_steps, curve):
    """Kolmogorov-Smirnov distance to the mixture within sampling error and the steps' own."""
    noise = draws(COUNT)
    levels = [*geometric(curve, num_steps, first=40.0, last=0.02), CLEAN]
    x = noise() * math.hypot(levels[0].alpha, levels[0].sigma)
    end, _ = run(name, x, levels, mixture, noise, **options)
    end = end.sort().values
    ranks = torch.arange(1, COUNT + 1, dtype=torch.float64) / COUNT
    distance = (mixture_cdf(end) - ranks).abs().max().item()
    assert distance < 1.95 / math.sqrt(COUNT) + 0.006, distance  # 1.95: one in a thousand by chance


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(("name", "options", "num_steps"), STOCHASTIC)
def test_gaussian(name, options, num_steps, curve):
    noise = draws(COUNT, 1)
    levels = [*geometric(curve, num_steps, first=40.0, last=0.02), CLEAN]
    x = noise() * math.hypot(levels[0].alpha, levels[0].sigma)
    end, _ = run(name, x, levels, gaussian, noise, **options)
    assert abs(end.mean().item() - 0.7) < 0.015
    assert abs(end.std().item() / 0.4 - 1) < 0.025


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_lcm_is_exact_with_a_consistency_function(num_steps, curve):
    noise = draws(COUNT, 2)
    levels = [*geometric(curve, num_steps, first=60.0, last=1.0)[:-1], CLEAN]
    x = noise() * math.hypot(levels[0].alpha, levels[0].sigma)
    end, asked = run("lcm", x, levels, gaussian_flow, noise)
    assert len(asked) == num_steps
    assert abs(end.mean().item() - 0.7) < 0.02
    assert abs(end.std().item() / 0.4 - 1) < 0.02
