"""The measured order of convergence of every sampler, on an exact score, for VE, VP and flow."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from problems import CURVES, gaussian, geometric, mixture, run

from pictura.levels import CLEAN, Level

ORDERS = [
    ("euler", {}, 1),
    ("ddim", {}, 1),
    ("euler_ancestral", {"eta": 0.0}, 1),
    ("heun", {}, 2),
    ("dpmpp_2m", {}, 2),
    ("dpmpp_2m_sde", {"eta": 0.0}, 2),
    ("dpmpp_sde", {"eta": 0.0}, 2),
    ("unipc", {"order": 1}, 2),  # the corrector lifts the order by one
    ("unipc", {"order": 2}, 2.5),  # 3 until the first step, of order 1 and corrected, is what is left
    ("unipc", {"order": 3}, 2),  # the last two steps are of lower order, as in the reference
]


@cache
def reference(curve):
    """Starting points over the whole of x_T and where they end, by 4096 Heun steps."""
    levels = geometric(curve, 4096)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64) * math.hypot(*levels[0])
    return x, run("heun", x, levels, mixture)[0]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize(("name", "options", "order"), ORDERS)
def test_order(name, options, order, curve):
    x, exact = reference(curve)
    errors = [
        (run(name, x, geometric(curve, n), mixture, **options)[0] - exact).abs().max() for n in (32, 64, 128)
    ]
    measured = math.log2(errors[0] / errors[-1]) / 2
    assert order - 0.1 < measured < order + 0.2, f"order {measured:.2f}, errors {errors}"
    assert errors[-1] < (2e-2 if order == 1 else 5e-4)


@pytest.mark.parametrize("curve", ["vp", "flow"])
@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "dpmpp_sde", "unipc", "ddim"])
def test_from_pure_noise_to_the_picture(name, curve):
    """alpha = 0 at the start and sigma = 0 at the end are levels like any other; more steps come closer."""
    options = {"eta": 0.0} if name in ("dpmpp_2m_sde", "dpmpp_sde") else {}
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    exact = 0.7 + 0.4 * x  # what a Gaussian's flow makes of pure noise
    errors = []
    for n in (16, 64):
        if curve == "flow":
            inner = [Level(i / n, 1 - i / n) for i in range(1, n)]
        else:
            inner = [Level(math.sin(i / n * math.pi / 2), math.cos(i / n * math.pi / 2)) for i in range(1, n)]
        end, asked = run(name, x, [Level(0.0, 1.0), *inner, CLEAN], gaussian, **options)
        assert torch.isfinite(end).all() and all(torch.isfinite(x).all() for x, _ in asked)
        errors.append((end - exact).abs().max().item())
    assert errors[1] < errors[0] / 2 and errors[1] < 0.05, errors


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "unipc", "ddim", "euler_ancestral", "lcm"])
def test_one_step_is_the_answer(name):
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    end, asked = run(name, x, [Level(0.0, 1.0), CLEAN], gaussian)
    assert len(asked) == 1
    torch.testing.assert_close(end, gaussian(x, Level(0.0, 1.0)))


@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m", "unipc", "heun"])
def test_ve_and_vp_agree(name):
    """x / alpha in VP is x in VE: the same numbers to rounding."""
    ve, vp = geometric("ve", 12), geometric("vp", 12)
    x = torch.linspace(-40, 40, 9, dtype=torch.float64)
    one, _ = run(name, x, ve, mixture)
    two, _ = run(name, x * vp[0].alpha, vp, mixture)
    torch.testing.assert_close(two / vp[-1].alpha, one, rtol=1e-11, atol=1e-11)
