"""Euler's method on the probability-flow ODE (Karras et al. 2022, algorithm 1 without its second half)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver


def euler(x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor]) -> Solver:
    """One evaluation a step, order 1, no noise drawn.

    The step is straight along (x - alpha * x_0) / sigma, the noise that the answer implies: in x / alpha for
    VP and VE, in x for flows. All three lines give this one formula.
    """
    for now, then in pairwise(levels):
        x0 = yield x, now
        direction = (x - now.alpha * x0) / now.sigma
        x = then.alpha * x0 + then.sigma * direction
    return x
