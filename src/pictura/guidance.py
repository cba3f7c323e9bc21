"""Guidance: how many questions make one answer.

A *denoise* takes (x, level) and is a sub-program that returns the x_0 which the sampler sees. Guidance turns
one question into two and combines the answers; both travel in one tuple, so they share a forward pass.
"""

from __future__ import annotations

from torch import Tensor

from pictura.engine import Denoise, MakeAsk, SubProgram, plain
from pictura.levels import Level


def cfg(ask: MakeAsk, positive: Tensor, negative: Tensor, scale: float) -> Denoise:
    """Classifier-free guidance (Ho and Salimans 2022, eq. 6, written for x_0).

    `scale` 1 is the positive answer alone and asks one question; 0 is the negative one. Since x_0, noise and
    velocity are affine in each other at a given x, guiding any of them is the same.
    """
    if scale == 1.0:
        return plain(ask, positive)

    def denoise(x: Tensor, level: Level) -> SubProgram:
        yes, no = yield ask(x, level, positive), ask(x, level, negative)
        return no + scale * (yes - no)

    return denoise


def rescaled(ask: MakeAsk, positive: Tensor, negative: Tensor, scale: float, phi: float = 0.7) -> Denoise:
    """Guidance whose answer keeps the contrast of the positive one (Lin et al. 2023, eq. 15-16).

    `phi` 0 is plain guidance, 1 gives the guided x_0 the positive one's standard deviation.
    """

    def denoise(x: Tensor, level: Level) -> SubProgram:
        yes, no = yield ask(x, level, positive), ask(x, level, negative)
        guided = no + scale * (yes - no)
        contrast = _std(yes) / _std(guided)
        return phi * contrast * guided + (1 - phi) * guided

    return denoise


def limited(guided: Denoise, otherwise: Denoise, low: float, high: float) -> Denoise:
    """Guidance only where low < sigma / alpha <= high (Kynkäänniemi et al. 2024, eq. 5)."""

    def denoise(x: Tensor, level: Level) -> SubProgram:
        return guided(x, level) if low < level.ratio <= high else otherwise(x, level)

    return denoise


def _std(x: Tensor) -> Tensor:
    return x.std(dim=tuple(range(1, x.ndim)), keepdim=True)
