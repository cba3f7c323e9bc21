"""Against k-diffusion's formulas, written again in its own variables (x / alpha over sigma / alpha)."""

from __future__ import annotations

import math

import pytest
import torch
from problems import draws, geometric, mixture, run

from pictura.levels import CLEAN, Level

X = torch.linspace(-2, 2, 7, dtype=torch.float64)
LEVELS = [*geometric("ve", 9), CLEAN]
SIGMAS = [level.sigma for level in LEVELS]


def ancestral(sigma_from, sigma_to, eta):
    up = min(sigma_to, eta * math.sqrt(sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2))
    return math.sqrt(sigma_to**2 - up**2), up


def at(x, sigma):
    return mixture(x, Level(1.0, sigma))


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_euler_ancestral(eta):
    noise, x = draws(7), X * SIGMAS[0]
    for now, then in zip(SIGMAS, SIGMAS[1:], strict=False):
        down, up = ancestral(now, then, eta)
        x = x + (x - at(x, now)) / now * (down - now)
        if then > 0:
            x = x + noise() * up if eta else x
    ours, _ = run("euler_ancestral", X * SIGMAS[0], LEVELS, mixture, draws(7), eta=eta)
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_dpmpp_2m_sde(eta):
    """In terms of t = -log sigma; the midpoint form."""
    noise, x, before, h_before = draws(7, 1), X * SIGMAS[0], None, None
    for now, then in zip(SIGMAS, SIGMAS[1:], strict=False):
        x0 = at(x, now)
        if then == 0:
            x = x0
            continue
        h = math.log(now) - math.log(then)
        x = then / now * math.exp(-eta * h) * x - math.expm1(-h - eta * h) * x0
        if before is not None:
            x = x - 0.5 * math.expm1(-h - eta * h) * h / h_before * (x0 - before)
        if eta:
            x = x + noise() * then * math.sqrt(-math.expm1(-2 * eta * h))
        before, h_before = x0, h
    ours, _ = run("dpmpp_2m_sde", X * SIGMAS[0], LEVELS, mixture, draws(7, 1), eta=eta)
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("curve", ["ve", "vp", "flow"])
@pytest.mark.parametrize(("eta", "r"), [(0.0, 0.5), (1.0, 0.5), (0.6, 0.5), (1.0, 0.3)])
def test_dpmpp_sde(eta, r, curve):
    """Its noise is a Brownian path over sigma: W(middle) - W(now), then W(next) - W(now), each normalised."""
    noise, x = draws(7, 2), X * SIGMAS[0]
    for now, then in zip(SIGMAS, SIGMAS[1:], strict=False):
        x0 = at(x, now)
        if then == 0:
            x = x0
            continue
        middle = math.exp(math.log(now) + r * (math.log(then) - math.log(now)))
        first = noise() * math.sqrt(now - middle) if eta else torch.zeros(7)
        whole = first + noise() * math.sqrt(middle - then) if eta else torch.zeros(7)
        down, up = ancestral(now, middle, eta)
        guess = down / now * x - math.expm1(math.log(down) - math.log(now)) * x0
        guess = guess + first / math.sqrt(now - middle) * up
        x0_middle = at(guess, middle)
        down, up = ancestral(now, then, eta)
        mixed = (1 - 1 / (2 * r)) * x0 + 1 / (2 * r) * x0_middle
        x = down / now * x - math.expm1(math.log(down) - math.log(now)) * mixed
        x = x + whole / math.sqrt(now - then) * up
    levels = [*geometric(curve, 9), CLEAN]
    start = X * SIGMAS[0] * levels[0].alpha
    ours, _ = run("dpmpp_sde", start, levels, mixture, draws(7, 2), eta=eta, r=r)
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)
