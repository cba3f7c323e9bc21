"""PNDM, the pseudo linear multistep method (Liu et al. 2022, "PNDM", algorithm 2 with one warm-up step)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver

# Adams and Bashforth's weights for the newest answer, the one before, ...
_WEIGHTS = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12)}
_WEIGHTS[4] = (55 / 24, -59 / 24, 37 / 24, -9 / 24)


def pndm(x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor], *, velocity: int = 0) -> Solver:
    """One evaluation a step and one more in the first, which is Heun's; no noise drawn.

    Each step moves along the noise that up to four answers extrapolate to, as DDIM does along one (eq. 11).
    `velocity` 1 extrapolates v = alpha * noise - sigma * x_0 instead, for models that predict it.
    """
    history: list[Tensor] = []
    for now, then in pairwise(levels):
        x0 = yield x, now
        history = [_spoken(x, now, x0, velocity), *history][:4]
        if now.alpha == 0:  # no noise to extrapolate from: the answer is all there is
            x, history = then.alpha * x0 + then.sigma / now.sigma * x, []
            continue
        weights = _WEIGHTS[len(history)]
        mixed = weights[0] * history[0]
        for weight, old in zip(weights[1:], history[1:], strict=True):
            mixed = mixed + weight * old
        ahead = _move(x, now, then, mixed, velocity)
        if now == levels[0] and then.sigma > 0:
            x0 = yield ahead, then
            mixed = (history[0] + _spoken(ahead, then, x0, velocity)) / 2
            ahead = _move(x, now, then, mixed, velocity)
        x = ahead
    return x


def _spoken(x: Tensor, level: Level, x0: Tensor, velocity: int) -> Tensor:
    """The noise, or the velocity, that an answer x_0 stands for."""
    noise = (x - level.alpha * x0) / level.sigma
    return level.alpha * noise - level.sigma * x0 if velocity else noise


def _move(x: Tensor, now: Level, then: Level, spoken: Tensor, velocity: int) -> Tensor:
    """Eq. 11: from `now` to `then` along a noise."""
    # alpha^2 + sigma^2 is 1 for VP, where v is known, and scales back what other curves make of it.
    noise = spoken
    if velocity:
        noise = (now.alpha * spoken + now.sigma * x) / (now.alpha**2 + now.sigma**2)
    return then.alpha / now.alpha * (x - now.sigma * noise) + then.sigma * noise
