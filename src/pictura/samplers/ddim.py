"""DDIM (Song, Meng and Ermon 2020, eq. 12 and 16)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING

from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver


def ddim(x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor], *, eta: float = 0.0) -> Solver:
    """One evaluation a step, order 1; `eta` 0 draws no noise, 1 is ancestral sampling (DDPM).

    The paper's variance is written with q = (sigma' / alpha') / (sigma / alpha), so that it holds for VE and
    flows too; at alpha = 0 q is 0. The last step, to sigma = 0, draws nothing.
    """
    for now, then in pairwise(levels):
        x0 = yield x, now
        q = then.sigma * now.alpha / (then.alpha * now.sigma)
        fresh = eta * then.sigma * sqrt(max(1 - q * q, 0.0))  # eq. 16
        kept = sqrt(max(then.sigma**2 - fresh**2, 0.0))
        x = then.alpha * x0 + kept / now.sigma * (x - now.alpha * x0)
        if fresh > 0:
            x = x + fresh * noise()
    return x
