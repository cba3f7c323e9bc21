"""Ancestral sampling by Euler steps (Song et al. 2020 DDPM posterior, in k-diffusion's form)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING

from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver


def euler_ancestral(
    x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor], *, eta: float = 1.0
) -> Solver:
    """One evaluation a step: Euler down to `sigma_down`, then fresh noise up to the next sigma. Order 1.

    In sigma / alpha, sigma_up = eta * sigma' * sqrt(1 - (sigma' / sigma)^2) and sigma_down^2 is the rest of
    sigma'^2. With `eta` 1 each step draws from the exact posterior q(x' | x, x_0) of VE, VP and flow; at
    alpha = 0 that means all noise is new. The last step, to sigma = 0, draws none.
    """
    for now, then in pairwise(levels):
        x0 = yield x, now
        fall = then.sigma * now.alpha / (then.alpha * now.sigma)  # (sigma' / alpha') / (sigma / alpha)
        sigma_up = eta * then.sigma * sqrt(max(1 - fall * fall, 0.0))
        sigma_down = sqrt(max(then.sigma**2 - sigma_up**2, 0.0))
        direction = (x - now.alpha * x0) / now.sigma
        x = then.alpha * x0 + sigma_down * direction
        if sigma_up > 0:
            x = x + sigma_up * noise()
    return x
