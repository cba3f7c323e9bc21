"""DPM-Solver++ SDE, single step (k-diffusion's `dpmpp_sde`, after Lu et al. 2022, "DPM-Solver++")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp, sqrt
from typing import TYPE_CHECKING

from pictura.levels import Level, curve_of, on_curve

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver


def dpmpp_sde(
    x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor], *, eta: float = 1.0, r: float = 0.5
) -> Solver:
    """Two evaluations a step and one in the last, two draws a step; `eta` 0 is DPM-Solver++(2S).

    A step goes to the middle level, lambda + r * h, asks there, and steps again from its start with both
    answers. Both noises are increments of one Brownian path over sigma / alpha, so the two agree. From
    alpha = 0 (no middle) and to sigma = 0 the step is a single one.
    """
    curve = curve_of(levels)
    for now, then in pairwise(levels):
        x0 = yield x, now
        if now.alpha == 0 or then.sigma == 0:
            x, fresh = _step(x, x0, now, then, eta)
            x = x + fresh * noise() if fresh > 0 else x
            continue
        middle = on_curve(curve, exp(-(now.logsnr + r * (then.logsnr - now.logsnr))))
        first, second = (noise(), noise()) if eta > 0 else (0.0, 0.0)

        guess, fresh = _step(x, x0, now, middle, eta)
        x0_middle = yield guess + fresh * first, middle

        weight = 1 / (2 * r)
        x, fresh = _step(x, (1 - weight) * x0 + weight * x0_middle, now, then, eta)
        share = (now.ratio - middle.ratio) / (
            now.ratio - then.ratio
        )  # of the path's variance, in its first part
        x = x + fresh * (sqrt(share) * first + sqrt(1 - share) * second)
    return x


def _step(x: Tensor, x0: Tensor, now: Level, then: Level, eta: float) -> tuple[Tensor, float]:
    """From `now` to `then` without its ancestral noise, and how much noise that is."""
    fall = then.sigma * now.alpha / (then.alpha * now.sigma)
    fresh = min(then.sigma, eta * then.sigma * sqrt(max(1 - fall * fall, 0.0)))
    down = sqrt(max(then.sigma**2 - fresh**2, 0.0))
    return down / now.sigma * x + (then.alpha - down * now.alpha / now.sigma) * x0, fresh
