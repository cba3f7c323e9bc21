"""Guidance: what it asks, and what it makes of the answers, against the papers' formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pictura.engine import Ask, plain, watched
from pictura.guidance import cfg, limited, rescaled
from pictura.levels import Level

X = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
YES = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
NO = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(2)) * 2
LEVEL = Level(0.6, 0.8)


def ask(x, level, condition):
    return Ask("denoiser", {"x": x, "condition": condition})


def answer(program):
    """Run a denoise whose network answers with the condition itself: the result and the questions."""
    asks = next(program)
    try:
        program.send(tuple(one.inputs["condition"] for one in asks))
    except StopIteration as done:
        return done.value, len(asks)
    raise AssertionError("guidance asks once a step")


@pytest.mark.parametrize("scale", [0.0, 1.5, 7.5, -1.0])
def test_classifier_free(scale):
    """(1 + w) positive - w negative, as in the paper, with scale = 1 + w."""
    guided, asked = answer(cfg(ask, YES, NO, scale)(X, LEVEL))
    w = scale - 1
    np.testing.assert_allclose(guided.numpy(), (1 + w) * YES.numpy() - w * NO.numpy(), rtol=2e-5, atol=2e-5)
    assert asked == 2


def test_scale_one_asks_once():
    guided, asked = answer(cfg(ask, YES, NO, 1.0)(X, LEVEL))
    assert asked == 1 and torch.equal(guided, YES)


def test_guiding_x0_is_guiding_noise_or_velocity():
    """At one x all three are affine in each other."""
    x0, _ = answer(cfg(ask, YES, NO, 4.0)(X, LEVEL))

    def noise(x0):
        return (X - LEVEL.alpha * x0) / LEVEL.sigma

    def velocity(x0):
        return LEVEL.alpha * noise(x0) - LEVEL.sigma * x0

    for other in (noise, velocity):
        expected = other(NO) + 4.0 * (other(YES) - other(NO))
        torch.testing.assert_close(other(x0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("phi", [0.0, 0.3, 0.7, 1.0])
def test_rescaled(phi):
    guided, asked = answer(rescaled(ask, YES, NO, 5.0, phi)(X, LEVEL))
    yes, no = YES.numpy().astype(np.float64), NO.numpy().astype(np.float64)
    plain_cfg = no + 5.0 * (yes - no)
    same_contrast = plain_cfg * yes.std() / plain_cfg.std()  # eq. 15
    expected = phi * same_contrast + (1 - phi) * plain_cfg  # eq. 16
    np.testing.assert_allclose(guided.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert asked == 2
    if phi == 1.0:
        assert guided.std().item() == pytest.approx(YES.std().item(), rel=1e-4)


def test_rescaling_is_per_picture():
    """Each row has its own contrast: a loud neighbour changes nothing."""
    both = rescaled(ask, torch.cat([YES, 9 * YES]), torch.cat([NO, NO]), 5.0)(torch.cat([X, X]), LEVEL)
    alone, _ = answer(rescaled(ask, YES, NO, 5.0)(X, LEVEL))
    torch.testing.assert_close(answer(both)[0][:1], alone)


@pytest.mark.parametrize(
    ("ratio", "inside"), [(0.1, False), (0.5, False), (0.500001, True), (2.0, True), (2.1, False)]
)
def test_limited_to_an_interval(ratio, inside):
    denoise = limited(cfg(ask, YES, NO, 3.0), plain(ask, YES), 0.5, 2.0)
    guided, asked = answer(denoise(X, Level(1.0, ratio)))
    assert asked == (2 if inside else 1)
    assert torch.equal(guided, YES) is not inside


def test_pure_noise_is_outside_every_finite_interval():
    denoise = limited(cfg(ask, YES, NO, 3.0), plain(ask, YES), 0.0, 1e9)
    assert answer(denoise(X, Level(0.0, 1.0)))[1] == 1


def test_a_watcher_sees_the_guided_answer():
    seen = []
    guided, _ = answer(watched(cfg(ask, YES, NO, 3.0), lambda level, x0: seen.append((level, x0)))(X, LEVEL))
    assert seen == [(LEVEL, guided)]
