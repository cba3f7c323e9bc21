"""Multistep consistency sampling (Song et al. 2023, algorithm 1; Luo et al. 2023 for latent models)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver


def lcm(x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor]) -> Solver:
    """One evaluation a step: jump to the picture, add new noise for the next level. For distilled models.

    The answer x_0 is a consistency function's (its boundary scaling, c_skip and c_out, is the family's), so a
    plain denoiser gives blurred pictures here. The last step, to sigma = 0, draws no noise.
    """
    for now, then in pairwise(levels):
        x0 = yield x, now
        x = then.alpha * x0
        if then.sigma > 0:
            x = x + then.sigma * noise()
    return x
