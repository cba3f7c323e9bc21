"""Programs that are no diffusion at all go through the same engine unchanged."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pictura.engine import Ask, Engine, solve
from small_family import Small


class Zoo:
    """A generator, a token model and a scorer that answers with gradients."""

    def __init__(self):
        state = torch.get_rng_state()
        torch.manual_seed(1)
        self.generator = nn.ConvTranspose2d(8, 3, 4)
        self.tokens = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
        self.scorer = nn.Conv2d(3, 1, 3)
        torch.set_rng_state(state)
        self.small = Small()
        self.passes = 0

    def evaluate(self, net, variant, **inputs):
        self.passes += 1
        if net == "generator":
            return torch.tanh(self.generator(inputs["z"]))
        if net == "next":
            return self.tokens(inputs["ids"])[:, -1]
        if net == "slope":
            with torch.enable_grad():
                image = inputs["image"].detach().requires_grad_()
                score = self.scorer(image).square().sum()
                return torch.autograd.grad(score, image)[0]
        return self.small.evaluate(net, variant, **inputs)


def gan(seed):
    z = torch.randn(1, 8, 1, 1, generator=torch.Generator().manual_seed(seed))
    (image,) = yield (Ask("generator", {"z": z}),)
    return image


def cascade(zoo, seed):
    small = yield from zoo.small.run(seed=seed, size=4, num_steps=3)
    large = yield from zoo.small.run(seed=seed + 1, size=8, num_steps=2, sampler="heun")
    return F.interpolate(small, scale_factor=2.0) + large


def autoregressive(seed):
    rng = torch.Generator().manual_seed(seed)
    ids = torch.zeros(1, 1, dtype=torch.int64)
    for _ in range(12):
        (logits,) = yield (Ask("next", {"ids": ids}),)
        drawn = torch.multinomial(logits.softmax(-1), 1, generator=rng)
        ids = torch.cat([ids, drawn], 1)
    return ids[:, 1:].float().reshape(1, 3, 2, 2) / 8 - 1


def guided(seed):
    """CLIPDraw's kind: the picture itself is optimised by gradients that a network answers."""
    image = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    for _ in range(5):
        (slope,) = yield (Ask("slope", {"image": image}),)
        image = image - 0.1 * slope
    return image.clamp(-1, 1)


def test_all_kinds_share_one_engine():
    zoo = Zoo()

    def programs():
        for seed in range(4):
            yield gan(seed)
            yield cascade(zoo, seed)
            yield autoregressive(seed)
            yield guided(seed)

    alone = [solve(zoo, program) for program in programs()]
    separate, zoo.passes = zoo.passes, 0
    engine = Engine(zoo)
    tickets = [engine.add(program) for program in programs()]
    engine.run()
    for ticket, picture in zip(tickets, alone, strict=True):
        assert ticket.error is None
        torch.testing.assert_close(ticket.result, picture, rtol=0, atol=1e-5)
        assert not ticket.result.requires_grad
    assert zoo.passes < separate / 2


def test_exact_engine_gives_every_kind_its_bits():
    zoo = Zoo()
    engine = Engine(zoo, exact=True)
    made = [(engine.add(autoregressive(seed)), solve(zoo, autoregressive(seed))) for seed in range(5)]
    made += [(engine.add(guided(seed)), solve(zoo, guided(seed))) for seed in range(5)]
    engine.run()
    assert all(torch.equal(ticket.result, picture) for ticket, picture in made)


@pytest.mark.parametrize("outer", [True, False])
def test_grad_mode_belongs_to_the_drivers(outer):
    """A program that leaves gradients on at a question changes nothing for others or for the caller."""
    modes = []

    def careless():
        torch.set_grad_enabled(True)
        (image,) = yield (Ask("generator", {"z": torch.zeros(1, 8, 1, 1)}),)
        modes.append(image.requires_grad)
        return image

    def watching():
        for _ in range(3):
            modes.append(torch.is_grad_enabled())
            yield (Ask("generator", {"z": torch.zeros(1, 8, 1, 1)}),)
        return torch.zeros(1)

    with torch.set_grad_enabled(outer):
        engine = Engine(Zoo())
        for program in (careless(), watching(), careless()):
            engine.add(program)
        engine.run()
        assert torch.is_grad_enabled() is outer
        solve(Zoo(), watching())
        assert torch.is_grad_enabled() is outer
    assert modes and not any(modes)
