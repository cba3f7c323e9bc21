"""DPM-Solver++(2M) (Lu et al. 2022, "DPM-Solver++", algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isfinite
from typing import TYPE_CHECKING

from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver


def dpmpp_2m(
    x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor], *, order: int = 2, final_order: int = 2
) -> Solver:
    """One evaluation a step, order 2 from the answer before, no noise drawn.

    `order` 1 never looks back; `final_order` 1 does not in the last step.

    x' = sigma' / sigma * x - alpha' * (e^-h - 1) * D with h = lambda' - lambda. The first step and one whose
    h or previous h is infinite (to sigma = 0, or after alpha = 0) are of order 1.
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
        # alpha' e^-h = sigma' alpha / sigma, which is also finite at both ends.
        x = then.sigma / now.sigma * x + (then.alpha - then.sigma * now.alpha / now.sigma) * d
        before, h_before = x0, h
    return x
