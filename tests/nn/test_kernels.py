"""Quicker ways to compute the same: against torch's in float64, whatever this machine would choose."""

from __future__ import annotations

import copy
import platform
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oracle import fill, normal, off, unet_config
from pictura import measuring
from pictura.nn import kernels, memory, tiled, winograd
from pictura.nn.attention import Attention
from pictura.nn.resnet import Upsample
from pictura.nn.unet import UNet

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
needs_onednn = pytest.mark.skipif(not ONEDNN, reason="torch has no oneDNN here")


@pytest.fixture(params=["torch", pytest.param("onednn", marks=needs_onednn)])
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which every other way is quicker, with torch's matrix library or with oneDNN."""
    names = ("attentions float32", "attentions bfloat16")
    rates = {
        "products": {"linear": 1.0, "onednn": 100.0 if request.param == "onednn" else 0.5},
        "attentions": {f"fused torch.{n.split()[1]}": 1.0 for n in names}
        | {f"by head torch.{n.split()[1]}": 9.0 for n in names},
    }
    monkeypatch.setattr(kernels, "rates", rates.__getitem__)
    grouped = 1.0 if request.param == "onednn" else 0.0
    found = {"direct": 1e-3, "tile": 0.0, "grouped": grouped, "batched": 0.5}
    monkeypatch.setattr(tiled, "rates", lambda: found)


def winograd_of(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, f: int) -> torch.Tensor:
    """All bands of the convolution of x, its sides multiplied by f, with products by matrices."""
    m, u = winograd.method(f, x.dtype), winograd.transform(weight, f)
    added = 0.0 if bias is None else winograd.spread(bias, f)
    plan = winograd.plan(x, m)
    found = x.new_empty(len(x), len(weight), f * x.shape[2], f * x.shape[3])
    found = found.contiguous(memory_format=torch.channels_last)

    def multiply(v: torch.Tensor) -> torch.Tensor:
        assert len(v) == plan.tiles
        return (torch.einsum("tpc,poc->tpo", v, u) + added).contiguous()

    for band in plan.bands:
        winograd.convolve(x, found, plan, band, multiply, lambda rows, room: room.copy_(rows))
    return found


def direct(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, f: int) -> torch.Tensor:
    grown = F.interpolate(x, scale_factor=f) if f > 1 else x
    return F.conv2d(grown, weight, bias, padding=1)


@pytest.mark.parametrize("f", [1, 2])
@pytest.mark.parametrize(
    ("b", "c", "o", "h", "w"),
    [(1, 3, 5, 4, 4), (2, 7, 4, 9, 14), (1, 16, 8, 1, 30), (3, 2, 2, 23, 5), (1, 3, 2, 12, 16)],
)
@pytest.mark.parametrize("some", [(1, 1), (5, 1), (5, 1 << 20), (winograd.TILES, winograd.BAND)])
def test_winograd_is_the_convolution(
    f: int, b: int, c: int, o: int, h: int, w: int, some: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "TILES", some[0])
    monkeypatch.setattr(winograd, "BAND", some[1])
    x, weight, bias = normal(1, b, c, h, w).double(), normal(2, o, c, 3, 3).double(), normal(3, o).double()
    found = winograd_of(x, weight, bias, f)
    assert off(found, direct(x, weight, bias, f)) < 1e-13
    assert off(winograd_of(x, weight, None, f), found) > 0.01


@pytest.mark.parametrize("f", [1, 2])
def test_winograd_loses_little_in_float32(f: int) -> None:
    x, weight = normal(1, 1, 320, 29, 34), normal(2, 320, 320, 3, 3) / 54
    right = direct(x.double(), weight.double(), None, f)
    found = winograd_of(x, weight, None, f)
    assert float((found - right).square().mean().sqrt()) < 2e-6 * float(right.square().mean().sqrt())


@pytest.mark.parametrize("f", [1, 2])
@pytest.mark.parametrize("size", [(1, 67, 70), (2, 40, 67)])
def test_layers_by_winograds_method(f: int, size: tuple[int, int, int], quick: None) -> None:
    b, h, w = size
    layer: nn.Module = Upsample(24) if f > 1 else nn.Conv2d(24, 24, 3, padding=1)
    conv = layer.conv if isinstance(layer, Upsample) else layer
    x = normal(1, b, 24, h, w)
    with torch.no_grad():
        right = layer(x)
        kernels.accelerate(layer)
        assert tiled.tiled(conv, x, f) is not None
        found = layer(x)
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert off(found, right) < 1e-5
        if f > 1:  # another size than the double is interpolated
            other = F.conv2d(F.interpolate(x, (h + 3, w)), conv.weight, conv.bias, padding=1)
            assert off(layer(x, (h + 3, w)), other) < 1e-5


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_an_accelerated_network_answers_alike(seed: int, quick: None) -> None:
    config = unet_config(seed) | {"class_embed_type": None, "num_class_embeds": None}
    config |= {"class_embeddings_concat": False, "addition_embed_type": None, "time_cond_proj_dim": None}
    network = UNet(config).eval()
    fill(network, seed)
    names = list(network.state_dict())
    text = config["encoder_hid_dim"] or config["cross_attention_dim"]
    given = normal(1, 2, config["in_channels"], 21, 30), torch.tensor([9.0, 700.0]), normal(2, 2, 5, text)
    with torch.no_grad():
        right = network(*given)
        kernels.accelerate(network)
        assert list(network.state_dict()) == names
        assert any(isinstance(module, tiled.Conv3x3) for module in network.modules())
        found = network(*given)
        assert off(found, right) <= 1e-5
        assert not torch.equal(found, right), "nothing was computed another way"
    assert any(getattr(module, "kept", None) for module in network.modules())
    learning = network(*given)
    learning.square().mean().backward()
    assert torch.equal(learning, right)
    assert all(p.grad is not None for p in network.parameters())
    kernels.plain(network)
    with torch.no_grad():
        assert torch.equal(network(*given), right)
    assert {type(m) for m in network.modules()}.isdisjoint({kernels.Linear, tiled.Conv3x3, tiled.Doubling})
    assert not any("kept" in vars(m) or "mixing" in vars(m) for m in network.modules())


def test_changed_weights_are_transformed_anew(quick: None) -> None:
    layer = kernels.accelerate(nn.Conv2d(16, 24, 3, padding=1))
    x = normal(1, 1, 16, 20, 20)

    def right() -> torch.Tensor:
        return F.conv2d(x, layer.weight, layer.bias, padding=1)  # type: ignore[arg-type]

    with torch.no_grad():
        assert off(layer(x), right()) < 1e-5
        layer.weight.mul_(2)  # type: ignore[union-attr, operator]
        assert off(layer(x), right()) < 1e-5
        layer.weight = nn.Parameter(normal(5, 24, 16, 3, 3))
        assert off(layer(x), right()) < 1e-5
        other = {"weight": normal(6, 24, 16, 3, 3), "bias": normal(7, 24)}
        found = torch.func.functional_call(layer, other, (x,))
        assert off(found, F.conv2d(x, **other, padding=1)) < 1e-5


def test_a_copy_keeps_transformed_weights_of_its_own(quick: None) -> None:
    layer, x = kernels.accelerate(nn.Conv2d(16, 24, 3, padding=1)), normal(1, 1, 16, 20, 20)
    with torch.no_grad():
        right = layer(x)
        other = copy.deepcopy(layer)
        assert layer.kept is not None
        assert other.kept is None
        assert torch.equal(other(x), right)


def test_where_memory_is_short_convolutions_stay_direct(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "free_memory", lambda: 1000)
    layer, x = kernels.accelerate(nn.Conv2d(16, 24, 3, padding=1)), normal(1, 1, 16, 20, 20)
    with torch.no_grad():
        assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias, padding=1))  # type: ignore[arg-type]


@needs_onednn
@pytest.mark.parametrize("shape", [(1, 8), (7, 8), (2, 3, 8), (2, 1, 5, 8)])
def test_onednn_is_the_linear_layer(shape: tuple[int, ...]) -> None:
    x, weight, bias = normal(1, *shape), normal(2, 6, 8), normal(3, 6)
    for given in (x, x.transpose(0, -2)):
        assert off(kernels.by_onednn(given, weight, bias), F.linear(given, weight, bias)) < 1e-6
        assert off(kernels.by_onednn(given, weight), F.linear(given, weight)) < 1e-6


def test_attention_head_by_head(quick: None) -> None:
    # More queries than are taken at a time.
    n, m = 256 * torch.get_num_threads() + 37, 11
    q, k, v = (normal(i, 2, rows, 3, 10).transpose(1, 2) for i, rows in enumerate((n, m, m)))
    seen = normal(5, n, m) > 0
    seen[:, 0] = True
    for bias in (None, normal(6, 2, 1, 1, m), normal(7, 3, n, m), seen):
        right = F.scaled_dot_product_attention(q, k, v, bias)
        assert off(kernels.attention(q, k, v, bias), right) < 1e-5
        half_bias = bias.bfloat16() if bias is not None and bias.is_floating_point() else bias
        half = kernels.attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), half_bias)
        assert half.dtype == torch.bfloat16
        assert off(half.float(), right) < 0.03


def test_a_row_does_not_depend_on_its_batch_in_attention(quick: None) -> None:
    layer = kernels.accelerate(Attention(12, 12, 3))
    x = normal(1, 3, 40, 12)
    with torch.no_grad():
        q, k, v = layer.project(x, None)  # type: ignore[operator]
        together = kernels.attention(q, k, v)
        for i in range(3):
            assert torch.equal(together[i : i + 1], kernels.attention(*(t[i : i + 1] for t in (q, k, v))))


def test_rates_are_measured_once_on_a_machine(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path))
    measuring._kept.cache_clear()
    calls = []

    def measure() -> Mapping[str, float]:
        calls.append(1)
        return {"way": 2.5}

    assert measuring.kept("test", measure) == measuring.kept("test", measure) == {"way": 2.5}
    measuring._kept.cache_clear()  # as in another process
    assert measuring.kept("test", measure) == {"way": 2.5}
    assert len(calls) == 1
    (file,) = (tmp_path / "measured").iterdir()
    for damage in ("", "{", "[1]", '{"way": "quick"}', '{"way": null}'):
        file.write_text(damage)
        measuring._kept.cache_clear()
        assert measuring.kept("test", measure) == {"way": 2.5}
    assert len(calls) == 6
    monkeypatch.setenv("PICTURA_CACHE", str(file))  # no folder, nothing can be kept
    assert measuring.kept("test", measure) == {"way": 2.5}
    measuring._kept.cache_clear()


def test_what_is_measured_here_is_complete(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path))
    measuring._kept.cache_clear()
    threads = torch.get_num_threads()
    for found in (kernels.rates("products"), kernels.rates("attentions"), tiled.rates()):
        assert all(value > 0 for name, value in found.items() if ONEDNN or name != "grouped")
    assert torch.get_num_threads() == threads
    assert tiled.worthwhile(640, 640, 4) is False
    with torch.no_grad():
        layer, x = kernels.accelerate(nn.Linear(8, 6)), normal(1, 5, 8)
        assert off(layer(x), F.linear(x, layer.weight, layer.bias)) < 1e-6  # type: ignore[arg-type]
    measuring._kept.cache_clear()


FAULTS = """
import resource, sys, torch
from torch import nn
from pictura.nn import memory
print(memory.reuse() if sys.argv[1] == "reuse" else False)
layers = nn.Sequential(nn.Linear(64, 1280), nn.GELU(), nn.Linear(1280, 64)).requires_grad_(False)
x = torch.ones(8192, 64)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    layers(x)  # 40 MiB twice
before = faults()
for _ in range(5):
    layers(x)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts faults as Linux does")
def test_freed_memory_is_used_again() -> None:
    told = {}
    for mode in ("reuse", "plain"):
        run = [sys.executable, "-c", FAULTS, mode]
        told[mode] = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert told["reuse"][0] == str(platform.libc_ver()[0] == "glibc")
    if told["reuse"][0] == "True":
        assert int(told["reuse"][1]) < 0.5 * int(told["plain"][1])


def test_a_large_tensor_has_memory_of_its_own() -> None:
    small, large = memory.empty((3, 5), torch.float32), memory.empty((5, 2048, 1024), torch.bfloat16)
    assert small.shape == (3, 5)
    assert large.shape == (5, 2048, 1024)
    assert large.dtype == torch.bfloat16
    large.fill_(2)
    part = large[3, 7]
    del large
    assert float(part.sum()) == 2048  # a view keeps all of it


def test_nothing_is_kept_where_weights_are_streamed(quick: None) -> None:
    layer, x = kernels.accelerate(nn.Conv2d(16, 24, 3, padding=1), keep=False), normal(1, 1, 16, 20, 20)
    large = normal(2, 1, 16, 64, 65)  # weights for so many tiles are transformed each time
    with torch.no_grad():
        right = F.conv2d(x, layer.weight, layer.bias, padding=1)  # type: ignore[arg-type]
        assert torch.equal(layer(x), right)
        assert tiled.tiled(layer, large) is not None
        assert layer.kept is None


def test_the_environment_can_forbid_it(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICTURA_KERNELS", "torch")
    network = kernels.accelerate(nn.Sequential(nn.Linear(4, 4), Attention(4, 4, 2)))
    assert type(network[0]) is nn.Linear  # type: ignore[index]
    assert "mixing" not in vars(network[1])  # type: ignore[index]
