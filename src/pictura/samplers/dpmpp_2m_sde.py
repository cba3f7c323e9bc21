"""SDE-DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", section 5; midpoint form)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite, sqrt
from typing import TYPE_CHECKING

from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver


def dpmpp_2m_sde(
    x: Tensor,
    levels: Sequence[Level],
    noise: Callable[[], Tensor],
    *,
    eta: float = 1.0,
    order: int = 2,
    final_order: int = 2,
) -> Solver:
    """One evaluation a step, second order from the answer before, one draw a step (none to sigma = 0).

    `order` 1 never looks back; `final_order` 1 does not in the last step.
    `eta` scales the noise of the reverse SDE: 1 is the paper's, 0 is dpmpp_2m. With q = e^-h,
    x' = sigma' / sigma * q^eta * x + alpha' * (1 - q^(1 + eta)) * D + sigma' * sqrt(1 - q^(2 eta)) * noise.
    """
    before, h_before = None, 0.0
    for now, then in pairwise(levels):
        high = (order if then is not levels[-1] else min(order, final_order)) > 1
        x0 = yield x, now
        h = then.logsnr - now.logsnr
        d = x0
        if high and before is not None and isfinite(h) and isfinite(h_before):
            r = h_before / h
            d = x0 + (x0 - before) / (2 * r)
        q = then.sigma * now.alpha / (then.alpha * now.sigma)  # e^-h, 0 where h is infinite
        fresh = then.sigma * sqrt(max(1 - q ** (2 * eta), 0.0))
        x = then.sigma / now.sigma * q**eta * x + then.alpha * (1 - q ** (1 + eta)) * d
        if fresh > 0:
            x = x + fresh * noise()
        before, h_before = x0, h
    return x
