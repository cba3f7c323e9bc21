"""Heun's second-order method (Karras et al. 2022, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pictura.levels import Level, curve_of

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver


def heun(x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor]) -> Solver:
    """Two evaluations a step and one in the last (to sigma = 0), order 2, no noise drawn.

    Heun averages two slopes, so the line matters: y = x / alpha over sigma / alpha for VP and VE, as in the
    paper, and x itself over sigma for flows. A step that starts at alpha = 0 takes the flow's line,
    y = x / (alpha + sigma), on every curve.
    """
    flow = curve_of(levels) == "flow"
    for now, then in pairwise(levels):
        x0 = yield x, now
        guess = then.alpha * x0 + then.sigma * ((x - now.alpha * x0) / now.sigma)
        if then.sigma == 0:
            x = guess
            continue
        x0_guess = yield guess, then
        start = (x - now.alpha * x0) / now.sigma
        end = (guess - then.alpha * x0_guess) / then.sigma
        if flow or now.alpha == 0:
            unit, next_unit = now.alpha + now.sigma, then.alpha + then.sigma
            start, end = start - x0, end - x0_guess  # dy/dtau = noise - x_0
        else:
            unit, next_unit = now.alpha, then.alpha  # dy/dtau = noise
        tau, next_tau = now.sigma / unit, then.sigma / next_unit
        x = next_unit * (x / unit + (next_tau - tau) * (start + end) / 2)
    return x
