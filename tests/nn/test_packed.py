"""Convolutions that keep arranged weights against torch's own, in every way a weight may become another."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from crowds import together
from pictura.nn.packed import Conv2d, pack

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def off(layer, x):
    right = F.conv2d(
        x.double(), layer.weight.double(), None if layer.bias is None else layer.bias.double(),
        layer.stride, layer.padding, layer.dilation, layer.groups,
    )  # fmt: skip
    found = layer(x)
    assert found.shape == right.shape and found.dtype == x.dtype
    return float((found - right).abs().max() / right.abs().max())


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        ({"in_channels": 3, "out_channels": 10, "kernel_size": 3, "padding": 1}, (1, 3, 5, 7)),
        ({"in_channels": 32, "out_channels": 16, "kernel_size": 3, "padding": 1}, (2, 32, 8, 8)),
        ({"in_channels": 16, "out_channels": 24, "kernel_size": 1}, (1, 16, 9, 4)),
        ({"in_channels": 8, "out_channels": 8, "kernel_size": 3, "stride": 2, "padding": 1}, (1, 8, 16, 12)),
        ({"in_channels": 8, "out_channels": 8, "kernel_size": 3, "stride": 2, "bias": False}, (1, 8, 17, 13)),
        ({"in_channels": 8, "out_channels": 8, "kernel_size": 3, "padding": 2, "dilation": 2}, (1, 8, 9, 9)),
        ({"in_channels": 8, "out_channels": 16, "kernel_size": (1, 3), "groups": 4}, (1, 8, 6, 6)),
    ],
)
@pytest.mark.parametrize("last", [False, True])
@torch.no_grad()
def test_answers(made, shape, last):
    layer = pack(nn.Conv2d(**made))
    x = torch.randn(shape)
    if last:
        x = x.to(memory_format=torch.channels_last)
    assert type(layer) is Conv2d and off(layer, x) < 1e-5
    assert off(layer, torch.randn(shape)) < 1e-5, "a second time, with what is kept"
    assert off(layer, torch.randn(shape[0], shape[1], shape[2] + 3, shape[3] + 1)) < 1e-5


@torch.no_grad()
def test_another_weight():
    layer, x = pack(nn.Conv2d(8, 8, 3, padding=1)), torch.randn(1, 8, 6, 6)
    first = layer(x)
    layer.weight.mul_(2)
    assert off(layer, x) < 1e-5 and not torch.equal(layer(x), first)
    layer.weight = nn.Parameter(torch.randn(8, 8, 3, 3))
    assert off(layer, x) < 1e-5
    layer.load_state_dict(nn.Conv2d(8, 8, 3).state_dict())
    assert off(layer, x) < 1e-5
    other = copy.deepcopy(layer)
    layer.weight.zero_()
    assert off(other, x) < 1e-5 and set(other.state_dict()) == {"weight", "bias"}


def test_gradients_and_other_types_are_torchs():
    layer, plain = pack(nn.Conv2d(4, 4, 3, padding=1)), nn.Conv2d(4, 4, 3, padding=1)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 5, 5)
    with torch.no_grad():
        layer(x)
    for one in (layer, plain):
        one(x).square().sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    with torch.no_grad():
        half = x.bfloat16()
        assert torch.equal(layer.bfloat16()(half), plain.bfloat16()(half))


def test_threads_that_find_nothing_kept():
    layer, x = pack(nn.Conv2d(16, 16, 3, padding=1)).requires_grad_(False), torch.randn(1, 16, 8, 8)
    found = together(layer, [x] * 8)
    assert all(torch.equal(one, found[0]) for one in found)


def test_others_stay_as_they_are():
    circular = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
    same, valid = nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding="valid")
    pack(nn.Sequential(circular, same, valid))
    assert {type(circular), type(same), type(valid)} == {nn.Conv2d}
