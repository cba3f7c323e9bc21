"""The engine against its oracle `solve`."""

from __future__ import annotations

import pytest
import torch

from pictura import samplers
from pictura.engine import Ask, Engine, solve, translate
from pictura.guidance import cfg
from pictura.levels import Flow


class Tanh:
    """A network without weights whose rows are independent by construction."""

    def __init__(self):
        self.passes = 0

    def evaluate(self, net, variant, **inputs):
        self.passes += 1
        return torch.tanh(inputs["x"]) * inputs["condition"]


def picture(name, seed, num_steps, scale=2.0):
    rng = torch.Generator().manual_seed(seed)

    def noise():
        return torch.randn(1, 3, 4, 4, generator=rng)

    def ask(x, level, condition):
        return Ask("denoiser", {"x": x, "condition": condition})

    levels = Flow().levels(num_steps)
    yes, no = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.1)
    return (yield from translate(samplers.load(name)(noise(), levels, noise), cfg(ask, yes, no, scale)))


@pytest.mark.parametrize("name", samplers.names())
def test_engine_equals_solve(name):
    family = Tanh()
    engine = Engine(family)
    tickets = [engine.add(picture(name, seed, 3 + seed)) for seed in range(4)]
    engine.run()
    most = samplers.evaluations(name, Flow().levels(6))
    assert family.passes == most, "all four pictures share every pass"
    for seed, ticket in enumerate(tickets):
        assert ticket.evaluations == 2 * samplers.evaluations(name, Flow().levels(3 + seed))
        assert torch.equal(ticket.result, solve(Tanh(), picture(name, seed, 3 + seed)))
