"""Levels and processes: curves, times and ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictura.levels import CLEAN, VE, VP, Flow, Level, cosine, curve_of, linear, on_curve, scaled_linear

PROCESSES = [
    VP(alphas_cumprod=scaled_linear()),
    VP(alphas_cumprod=linear(), spacing="leading", offset=1),
    VP(alphas_cumprod=cosine(), spacing="linspace"),
    VE(),
    Flow(),
    Flow(shift=3.0, scale=1000.0),
]


@given(st.floats(1e-4, 1e4), st.sampled_from(["ve", "vp", "flow"]))
def test_on_curve_keeps_its_ratio(ratio, curve):
    level = on_curve(curve, ratio)
    assert level.ratio == pytest.approx(ratio, rel=1e-12)
    assert level.logsnr == pytest.approx(-math.log(ratio), abs=1e-9)
    norm = {"ve": level.alpha, "vp": math.hypot(*level), "flow": level.alpha + level.sigma}[curve]
    assert norm == pytest.approx(1.0)
    assert curve_of([level, on_curve(curve, ratio / 2)]) == curve


def test_the_ends_of_a_curve():
    assert on_curve("flow", math.inf) == on_curve("vp", math.inf) == Level(0.0, 1.0)
    assert on_curve("vp", 0.0) == on_curve("ve", 0.0) == on_curve("flow", 0.0) == CLEAN
    assert CLEAN.ratio == 0 and CLEAN.logsnr == math.inf
    assert Level(0.0, 1.0).ratio == math.inf and Level(0.0, 1.0).logsnr == -math.inf


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_time_and_level_are_inverse(process):
    for level in process.levels(11)[:-1]:
        again = process.level(process.time(level))
        assert again == pytest.approx(level, rel=1e-9, abs=1e-12)
        assert process.from_sigma(process.sigma_of(level)) == pytest.approx(level, rel=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("num_steps", [1, 2, 5, 50])
def test_own_schedule(process, num_steps):
    levels = process.levels(num_steps)
    assert len(levels) == num_steps + 1 and levels[-1] == CLEAN
    ratios = [level.ratio for level in levels]
    assert all(now > then for now, then in zip(ratios, ratios[1:], strict=False))
    high, low = process.ends(num_steps)
    assert high >= low > 0


def test_a_vp_process_between_two_training_steps():
    process = VP(alphas_cumprod=scaled_linear())
    low, high = process.level(500), process.level(501)
    middle = process.level(500.5)
    assert middle.logsnr == pytest.approx((low.logsnr + high.logsnr) / 2)
    assert process.time(middle) == pytest.approx(500.5)
    assert process.time(CLEAN) == 0.0 and process.time(Level(0.0, 1.0)) == 999.0


def test_the_end_of_older_models_is_their_first_training_step():
    process = VP(alphas_cumprod=scaled_linear(), to_zero=False)
    assert process.levels(10)[-1] == process.level(0)


def test_zero_terminal_snr_starts_at_pure_noise():
    """Lin et al. 2023: the last training step has no signal left."""
    process = VP(alphas_cumprod=(*scaled_linear()[:-1], 0.0))
    levels = process.levels(4)
    assert levels[0] == Level(0.0, 1.0) and process.time(levels[0]) == 999.0
