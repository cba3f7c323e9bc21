"""What every sampler keeps to, ours and others': whatever discovery finds is tested."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys

import pytest
import torch

from installed import install
from pictura import samplers
from pictura.errors import ParameterError
from pictura.levels import CLEAN, VE, VP, Flow, Level, scaled_linear
from pictura.samplers import schedules

PROCESSES = {"ve": VE(), "vp": VP(alphas_cumprod=scaled_linear()), "flow": Flow(), "shifted": Flow(shift=4)}


def denoiser(x, level, mean=0.7, std=0.4):
    """E[x_0 | x] of the Gaussian N(mean, std^2)."""
    variance = level.alpha**2 * std**2 + level.sigma**2
    return mean + level.alpha * std**2 / variance * (x - level.alpha * mean)


def drive(name, x, levels, noise):
    """The end and what was asked, in order."""
    solver, asked = samplers.load(name)(x, levels, noise), []
    try:
        question = next(solver)
        while True:
            asked.append(question)
            question = solver.send(denoiser(*question))
    except StopIteration as done:
        return done.value, asked


def normal(seed, shape, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=rng, dtype=dtype)


@pytest.fixture(params=samplers.names())
def name(request):
    return request.param


def test_signature(name):
    """(x, levels, noise, *, options with number defaults), and a docstring that is the contract."""
    parameters = list(inspect.signature(samplers.load(name)).parameters.values())
    assert [p.name for p in parameters[:3]] == ["x", "levels", "noise"]
    assert all(p.kind is p.KEYWORD_ONLY and isinstance(p.default, int | float) for p in parameters[3:])
    assert len(samplers.load(name).__doc__) > 40


@pytest.mark.parametrize("process", PROCESSES)
def test_ends_in_the_data(name, process):
    """From the process's own noise to its own end, the Gaussian comes out."""
    levels = PROCESSES[process].levels(60)
    noise = normal(0, (4000,))
    start = noise() * levels[0].sigma + levels[0].alpha * (0.7 + 0.4 * noise())
    end, _ = drive(name, start, levels, noise)
    assert torch.isfinite(end).all()
    assert abs(end.mean().item() - 0.7) < 0.03
    if name != "lcm":  # which wants a consistency function and narrows what a denoiser says
        assert 0.85 < end.std().item() / 0.4 < 1.1


@pytest.mark.parametrize("schedule", [*schedules.SCHEDULES, "shift:3"])
@pytest.mark.parametrize("process", PROCESSES)
def test_every_schedule_and_step_count(name, process, schedule):
    if schedule.startswith("shift") and not isinstance(PROCESSES[process], Flow):
        with pytest.raises(ParameterError, match="flow"):
            schedules.named(schedule)(PROCESSES[process], 4)
        return
    for num_steps in (1, 2, 3, 7):
        check_levels(name, schedules.named(schedule)(PROCESSES[process], num_steps), num_steps)


def check_levels(name, levels, num_steps):
    assert len(levels) == num_steps + 1 and levels[-1] == CLEAN
    assert all(now.ratio > then.ratio for now, then in zip(levels, levels[1:], strict=False))
    noise = normal(1, (5,))
    end, asked = drive(name, noise() * levels[0].sigma, levels, noise)
    assert torch.isfinite(end).all() and end.shape == (5,)
    assert len(asked) == samplers.evaluations(name, levels)
    ratios = [level.ratio for _, level in asked]
    assert asked[0][1] == levels[0] and all(level.sigma > 0 for _, level in asked)
    assert ratios == sorted(ratios, reverse=True), "questions go from noise to picture"


def test_rows_are_independent(name):
    """Each row of x as if it were alone, to the bit."""
    levels = Flow().levels(6)
    draws = [normal(seed, (1, 3)) for seed in range(4)]
    together, _ = drive(
        name, torch.cat([d() for d in draws]), levels, lambda: torch.cat([d() for d in draws])
    )
    for seed, row in enumerate(together):
        noise = normal(seed, (1, 3))
        assert torch.equal(drive(name, noise(), levels, noise)[0][0], row)


def test_inputs_and_answers_are_left_as_they_are(name):
    levels = Flow().levels(5)
    noise = normal(2, (4,))
    x = noise()
    kept, answers = x.clone(), []
    solver = samplers.load(name)(x, levels, noise)
    try:
        question = next(solver)
        while True:
            answer = denoiser(*question)
            answers.append((answer, answer.clone()))
            question = solver.send(answer)
    except StopIteration:
        pass
    assert torch.equal(x, kept) and all(torch.equal(now, then) for now, then in answers)


def test_state_is_kept_in_dtype_and_shape(name):
    noise = normal(3, (1, 3, 4, 6), torch.float32)
    end, asked = drive(name, noise(), Flow().levels(4), noise)
    assert end.dtype == torch.float32 and end.shape == (1, 3, 4, 6)
    assert all(x.dtype == torch.float32 and isinstance(level, Level) for x, level in asked)


def test_global_random_numbers_are_not_touched(name):
    before = torch.get_rng_state()
    noise = normal(4, (3,))
    drive(name, noise(), Flow().levels(4), noise)
    assert torch.equal(before, torch.get_rng_state())


def test_closing_half_way(name):
    solver = samplers.load(name)(torch.zeros(3), Flow().levels(4), lambda: torch.zeros(3))
    next(solver)
    solver.close()
    with pytest.raises(StopIteration):
        next(solver)


def test_names_and_the_nearest_one():
    assert {"euler", "heun", "ddim", "euler_ancestral", "dpmpp_2m", "dpmpp_2m_sde"} < set(samplers.names())
    assert samplers() == samplers.names() == tuple(sorted(samplers.names()))
    with pytest.raises(ParameterError, match="'heum' is unknown; did you mean 'heun'") as caught:
        samplers.load("heum")
    assert caught.value.parameter == "sampler"
    with pytest.raises(ParameterError, match="did you mean 'karras'"):
        schedules.named("karas")
    for bad in ("shift:", "shift:0", "shift:-1", "shift:nan", "shift:x"):
        with pytest.raises(ParameterError, match="above 0"):
            schedules.named(bad)


def test_options_are_checked():
    assert samplers.options("ddim") == {"eta": 0.0}
    samplers.check_options("ddim", {"eta": 0.5})
    with pytest.raises(ParameterError, match="'ddim' has no option 'rho'; its options: eta"):
        samplers.check_options("ddim", {"rho": 7.0})


def test_naming_samplers_imports_no_torch():
    code = "import sys, pictura.samplers as s; s.names(); s.load('heun'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_sampler_of_another_package(tmp_path, monkeypatch):
    """An entry point is all it takes; one that cannot be imported says whose fault it is."""
    from pictura.discovery import found

    (tmp_path / "jump.py").write_text(
        "def jump(x, levels, noise):\n    x0 = yield x, levels[0]\n    return x0\n"
    )
    install(tmp_path, "jump", {"pictura.samplers": {"jump": "jump:jump", "lost": "no_such_module:lost"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    found.cache_clear()
    try:
        assert {"jump", "lost"} < set(samplers.names())
        end, _ = drive("jump", torch.zeros(2), Flow().levels(3), None)
        assert math.isclose(end[0].item(), 0.7, rel_tol=1e-6)
        with pytest.raises(Exception, match="'lost' could not be imported from no_such_module:lost"):
            samplers.load("lost")
    finally:
        found.cache_clear()
