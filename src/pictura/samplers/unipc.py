"""UniPC (Zhao et al. 2023, algorithms 1-3), data prediction, B(h) = e^h - 1 ("bh2")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import expm1, factorial, inf, isfinite
from typing import TYPE_CHECKING

import numpy as np

from pictura.levels import Level

if TYPE_CHECKING:
    from torch import Tensor

    from pictura.engine import Solver

    Answers = list[tuple[Level, Tensor]]  # the latest first


def unipc(x: Tensor, levels: Sequence[Level], noise: Callable[[], Tensor], *, order: int = 2) -> Solver:
    """One evaluation a step, no noise drawn; `order` 1 to 3, lowered in the first and last steps.

    The answer at a predicted x first corrects how x got there (UniC), then predicts the next (UniP): the
    corrector costs no evaluation. Answers at alpha = 0 count for order 1 only, where lambda is infinite.
    """
    answers: Answers = []
    start, used = x, 1  # where the last step began, and its order
    for step, then in enumerate(levels[1:]):
        now = levels[step]
        x0 = yield x, now
        if answers:
            x = _update(start, now, answers[:used], x0)
        answers = [(now, x0), *answers][:order]
        known = sum(isfinite(level.logsnr) for level, _ in answers) if isfinite(now.logsnr) else 1
        used = max(1, min(known, len(levels) - 1 - step, order))
        start, x = x, _update(x, then, answers[:used], None)
    return x


def _update(x: Tensor, then: Level, answers: Answers, corrector: Tensor | None) -> Tensor:
    """Eq. 8-9 from answers[0]'s level to `then`; with the answer at `then` as `corrector` it is UniC."""
    (now, m0), older = answers[0], answers[1:]
    h = then.logsnr - now.logsnr
    nodes = [(level.logsnr - now.logsnr) / h for level, _ in older]
    steps = [(m - m0) / r for r, (_, m) in zip(nodes, older, strict=True)]
    if corrector is not None:
        nodes, steps = [*nodes, 1.0], [*steps, corrector - m0]
    b = -1.0 if h == inf else expm1(-h)
    # sigma' / sigma x - alpha' (e^-h - 1) m0 in a form that is finite at alpha = 0 and sigma' = 0
    x = then.sigma / now.sigma * x + (then.alpha - then.sigma * now.alpha / now.sigma) * m0
    for weight, difference in zip(_weights(h, nodes), steps, strict=True):
        x = x - then.alpha * b * weight * difference
    return x


def _weights(h: float, nodes: list[float]) -> list[float]:
    """The a_m of eq. 9-10: they make the step exact for polynomials through the `nodes` (in units of h)."""
    if len(nodes) < 2:
        return [0.5] * len(nodes)  # appendix F: one node needs no system
    hh = -h
    phi = expm1(hh) / hh - 1
    rights = []
    for i in range(1, len(nodes) + 1):
        rights.append(phi * factorial(i) / expm1(hh))
        phi = phi / hh - 1 / factorial(i + 1)
    powers = np.vander(np.asarray(nodes), increasing=True).T
    return [float(weight) for weight in np.linalg.solve(powers, np.asarray(rights))]
