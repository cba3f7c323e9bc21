"""What every family keeps to, ours and others': whatever discovery finds is tested."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from installed import install
from pictura import discovery, families, samplers
from pictura.engine import Ask, Engine, solve
from pictura.errors import InputError, ParameterError, PresetError
from pictura.families import Family, Option
from pictura.request import Request
from pipelines import family_of, pipeline

LATENT = {"stable_diffusion": "sd1", "stable_diffusion_3": "sd3", "flux": "flux-dev"}
COMMON = {"negative_prompt", "size", "num_steps", "guidance_scale", "sampler", "schedule"}


@pytest.fixture(scope="module", params=families.names())
def family(request):
    state = torch.get_rng_state()
    if request.param in LATENT:  # they are as their files say, so they need some
        made = family_of(pipeline(LATENT[request.param]), LATENT[request.param])
        torch.set_rng_state(state)
        return made
    torch.manual_seed(0)
    made = families.load(request.param).from_config({})
    # Networks start with zeros where training wants them; every weight is to matter here.
    with torch.no_grad():
        for net in made.networks().values():
            net.eval()
            for p in net.parameters():
                p.add_(0.02 * torch.randn_like(p))
    torch.set_rng_state(state)
    return made


def completed(family, prompt="a cat", seed=0, **values):
    fitting = {name: value for name, value in values.items() if name in family.parameters}
    if "num_steps" in family.parameters:
        fitting.setdefault("num_steps", 2)
    return Request(prompt=prompt, seed=seed, **fitting).completed(family.defaults())


def quiet(level, x0):
    pass


def test_description(family):
    assert isinstance(family, Family)
    assert families.load(family.name) is type(family)
    assert family.parameters <= COMMON | set(family.options)
    assert set(family.options) <= family.parameters
    assert set(family.defaults()) <= family.parameters | {"size"}
    for name, option in family.options.items():
        assert isinstance(option, Option) and option.name == name and option.help
        assert option.default is None or isinstance(option.default, option.type)
        assert not option.choices or option.default is None or option.default in option.choices


def test_config_round_trip(family):
    config = family.config()
    again = type(family).from_config(json.loads(json.dumps(config)))
    assert again.config() == config
    shapes = [
        {
            f"{net}.{name}": p.shape
            for net, module in f.networks().items()
            for name, p in module.state_dict().items()
        }
        for f in (family, again)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("bad", [{"no_such_key": 1}])
def test_a_wrong_config_is_a_preset_error(family, bad):
    with pytest.raises(PresetError):
        type(family).from_config(bad)


def test_networks_can_be_built_without_memory(family):
    with torch.device("meta"):
        again = type(family).from_config(family.config())
    assert all(p.is_meta for net in again.networks().values() for p in net.parameters())


def test_check_accepts_the_defaults_and_refuses_odd_sizes(family):
    family.check(completed(family))
    if "size" in family.parameters:
        with pytest.raises(ParameterError) as caught:
            family.check(completed(family, size=(7, 9)))
        assert caught.value.parameter == "size" and "7x9" in str(caught.value)


def test_run_asks_and_touches_no_network(family, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("run must ask, not compute")

    monkeypatch.setattr(type(family), "evaluate", forbidden)
    program = family.run(completed(family), quiet)
    asks = next(program)
    assert isinstance(asks, tuple) and asks and all(isinstance(ask, Ask) for ask in asks)
    assert all(x.shape[0] == 1 for ask in asks for x in ask.inputs.values())
    program.close()


def test_a_picture_in_range_that_its_seed_decides(family):
    before = torch.get_rng_state()
    one, same, other = (solve(family, family.run(completed(family, seed=seed), quiet)) for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state()), "all randomness is the picture's own"
    assert one.shape[:2] == (1, 3) and one.dtype == torch.float32
    assert torch.isfinite(one).all() and one.abs().max() <= 1 and not one.requires_grad
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_notes_are_told_after_each_step(family):
    told = []
    request = completed(family, num_steps=3)
    picture = solve(family, family.run(request, lambda level, x0: told.append((level, x0))))
    assert told
    if request.sampler == "euler":
        assert len(told) == 3
    ratios = [level.ratio for level, _ in told]
    assert ratios == sorted(ratios, reverse=True)
    assert all(x0.shape[:2] == (1, 3) for _, x0 in told) and picture.shape[0] == 1


def test_alone_or_in_any_company(family):
    """Late arrivals, other samplers and a cancelled neighbour change no bit."""
    rng = random.Random(0)
    names = samplers.names()
    requests = [
        completed(
            family,
            prompt=rng.choice(["a cat", "two dogs on a red background", ""]),
            seed=i,
            num_steps=rng.choice([1, 2, 3]),
            sampler=names[i % len(names)],
            guidance_scale=rng.choice([1.0, 3.0]),
        )
        for i in range(7)
    ]
    alone = [solve(family, family.run(request, quiet)) for request in requests]
    engine = Engine(family, rows=getattr(family, "rows", None))
    tickets = [engine.add(family.run(request, quiet)) for request in requests[:4]]
    doomed = engine.add(family.run(completed(family, seed=9, num_steps=3), quiet))
    engine.step()
    doomed.cancel()
    for request in requests[4:]:
        engine.step()
        tickets.append(engine.add(family.run(request, quiet)))
    engine.run()
    for ticket, picture in zip(tickets, alone, strict=True):
        assert ticket.error is None and torch.equal(ticket.result, picture)


def test_notes_for_the_user(family):
    if family.name not in LATENT:  # which know the words of a language, not a list of some
        assert family.notes(completed(family, prompt="a xyzzyx"))
        assert family.notes(completed(family, prompt=""))
    assert all(isinstance(note, str) for note in family.notes(completed(family)))


def examples(count=4):
    rng = np.random.default_rng(0)
    side = 128
    pictures = [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(count)]
    prompts = ["a cat", "two dogs", "a pizza on a red background", ""]
    return [{"images": picture, "prompts": prompt} for picture, prompt in zip(pictures, prompts, strict=True)]


def test_examples_become_a_batch_and_a_loss(family):
    given = examples()
    if family.name == "toy":  # draws 8x8
        given = [{**e, "images": e["images"].resize((8, 8))} for e in given]
    before = torch.get_rng_state()
    batch = family.prepare(given)
    again = family.prepare(given)
    assert torch.equal(before, torch.get_rng_state()), "prepare draws no random numbers"
    assert batch.keys() == again.keys()
    for name, value in batch.items():
        assert isinstance(value, torch.Tensor) and len(value) == len(given)
        assert torch.equal(value, again[name])
    losses = [family.loss(batch, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert losses[0].keys() == losses[1].keys() and losses[0]
    for name, loss in losses[0].items():
        assert loss.ndim == 0 and torch.isfinite(loss) and loss.requires_grad
        torch.testing.assert_close(loss, losses[1][name])
        assert set(name.split("+")) & set(family.networks()), "a loss is keyed by the networks it updates"
    assert torch.equal(before, torch.get_rng_state()), "loss draws from its own generator"


def test_a_broken_family_of_another_package_takes_no_other_with_it(tmp_path, monkeypatch):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "__init__.py").write_text("")
    points = {"bare": "bare.family:FAMILY", "gone": "gone.family:FAMILY"}
    install(tmp_path, "bare", {"pictura.families": points})
    monkeypatch.syspath_prepend(str(tmp_path))
    discovery.found.cache_clear()
    try:
        with pytest.warns(UserWarning, match="'gone' are left out"):
            assert "toy" in families.presets()
        with pytest.raises(InputError, match="'gone' could not be imported"):
            families.load("gone")
        with pytest.raises(ParameterError, match="did you mean 'scenes'"):
            families.load("scene")
    finally:
        discovery.found.cache_clear()
