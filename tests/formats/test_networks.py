"""Building networks around weights: no memory before the check, nothing drawn that a file replaces."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pictura.errors import CheckpointError
from pictura.formats import networks, safetensors, writing


class Net(nn.Module):
    """With all that makes loading hard: a shared weight, both kinds of buffer and a plain table."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = nn.Linear(width, width, bias=False)
        self.two = nn.Linear(width, width)
        self.two.weight = self.one.weight
        self.free = nn.Parameter(torch.randn(width) * 0.02)
        self.register_buffer("mean", torch.full((width,), 3.0))
        self.register_buffer("count", torch.tensor(4))
        self.register_buffer("passing", torch.arange(width).float(), persistent=False)
        self.table = torch.linspace(0, 1, width)


class Model:
    def __init__(self, width: int = 8) -> None:
        self.net = Net(width)

    def networks(self) -> dict[str, nn.Module]:
        return {"net": self.net}


def saved(folder: Path, model: Model) -> dict[str, safetensors.Entry]:
    writing.write(folder, {name: t.detach() for name, t in networks.tensors(model.networks()).items()})
    return safetensors.weights(folder)


def test_round_trip(tmp_path: Path) -> None:
    model = Model()
    model.net.mean += 1
    entries = saved(tmp_path, model)
    assert set(entries) == {"net.one.weight", "net.two.bias", "net.free", "net.mean", "net.count"}
    again = networks.build(Model, entries)
    for name, tensor in networks.tensors(model.networks()).items():
        assert torch.equal(tensor, networks.tensors(again.networks())[name]), name
    assert again.net.two.weight is again.net.one.weight
    assert torch.equal(again.net.passing, torch.arange(8.0)) and torch.equal(again.net.table, model.net.table)
    assert not any(tensor.is_meta for tensor in [*again.net.parameters(), *again.net.buffers()])


def test_dtype(tmp_path: Path) -> None:
    model = Model()
    half = networks.build(Model, saved(tmp_path, model), dtype=torch.bfloat16)
    assert half.net.one.weight.dtype == half.net.passing.dtype == torch.bfloat16
    assert half.net.count.dtype == torch.int64 and half.net.count == 4
    assert torch.equal(half.net.free, model.net.free.bfloat16())
    assert networks.build(Model, None, dtype=torch.float64).net.free.dtype == torch.float64


def test_the_check_comes_before_any_memory_is_taken(tmp_path: Path) -> None:
    entries = saved(tmp_path, Model())
    with pytest.raises(CheckpointError, match=r"'net.count'|'net.free' .* needs \[1000000\]"):
        networks.build(lambda: Model(1_000_000), entries)  # would be 4 TB


def test_no_weight_is_drawn_that_the_file_replaces(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    networks.build(lambda: nn_only(8), entries=None)
    assert not torch.equal(before, torch.get_rng_state())
    plain = nn_only(8)
    entries = saved(tmp_path, plain)
    before = torch.get_rng_state()
    networks.build(lambda: nn_only(8), entries)
    assert torch.equal(before, torch.get_rng_state())


def nn_only(width: int) -> Model:
    model = Model.__new__(Model)
    model.net = nn.Sequential(
        nn.Linear(width, width), nn.Conv2d(3, 4, 3), nn.LayerNorm(4), nn.Embedding(3, 4)
    )  # type: ignore[assignment]
    return model


def test_weights_are_stored_as_they_were_unless_that_loses_something() -> None:
    exact, trained = torch.randn(4).bfloat16().float(), torch.tensor([0.1, 0.2])
    stored = networks.stored_as(
        {"a": exact, "b": trained, "c": exact}, {"a": torch.bfloat16, "b": torch.bfloat16}
    )
    assert [stored[name].dtype for name in "abc"] == [torch.bfloat16, torch.float32, torch.float32]
    assert torch.equal(stored["a"].float(), exact)


def test_moving_keeps_parameters_the_same_objects() -> None:
    model = Model()
    kept = model.net.one.weight
    networks.move(model.net, dtype=torch.float64)
    assert model.net.one.weight is kept and model.net.two.weight is kept and kept.dtype == torch.float64
