"""Lower precision for the large products of transformers: which one this machine gains by, and int8 linears.

An int8 linear keeps a scale for each row of its weight and finds one for each row of its input as it comes
(dynamic quantisation, as in LLM.int8 by Dettmers et al. 2022, without its outliers). For answers only: it has
no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura import measuring
from pictura.nn import kernels
from pictura.nn.tiled import alone

__all__ = ["GAIN", "Int8Linear", "quantise", "rates", "with_int8"]

GAIN = 1.2  # a lower precision must be this much quicker to be worth what it loses
ROWS = 512  # rows at a time: more leaves the processor's caches


class Int8Linear(nn.Linear):
    """`weight` is int8; `scale` (out,) times a row of it is the row it was made of."""

    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out) in the dtype of x."""
        given = x.flatten(0, -2)
        found = given.new_empty(len(given), self.out_features)
        for at in range(0, len(given), ROWS):
            found[at : at + ROWS] = self._some(given[at : at + ROWS])
        return found.unflatten(0, x.shape[:-1])

    def _some(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(1, keepdim=True).float().clamp_min(1e-30) / 127
        rows = (x / scale).round().to(torch.int8)
        products = torch._int_mm(rows, self.weight.T) * scale  # (n, out) float32
        bias = 0.0 if self.bias is None else self.bias.float()
        return products * self.scale + bias


def quantise(linear: nn.Linear) -> None:
    """Make `linear` itself an int8 one."""
    weight = linear.weight.detach().float()
    scale = weight.abs().amax(1).clamp_min(1e-30) / 127
    linear.weight = nn.Parameter((weight / scale[:, None]).round().to(torch.int8), requires_grad=False)
    linear.register_buffer("scale", scale, persistent=False)
    linear.__class__ = Int8Linear


def with_int8(network: nn.Module) -> nn.Module:
    """`network` itself; the linears of the blocks that it lists in `streams` compute in int8.

    Those that make modulations stay: they are small and everything depends on them.
    """
    for path in getattr(network, "streams", ()):
        for name, linear in network.get_submodule(path).named_modules():
            if isinstance(linear, nn.Linear) and ".norm" not in name:
                quantise(linear)
    return network


def rates() -> Mapping[str, float]:
    """Operations a second of one thread for a linear of SD3's width on 512 tokens, by the name of the
    precision; each computed the quickest way there is for it."""
    return measuring.kept("precisions", _measure)


@alone
def _measure() -> dict[str, float]:
    width, rows = 1536, 512
    x, linear = torch.full((rows, width), 0.1), nn.Linear(width, width).requires_grad_(False)
    half, halved = x.bfloat16(), linear.weight.bfloat16()
    ways = {
        "float32": partial(kernels.product(), x, linear.weight, linear.bias),
        "bfloat16": partial(F.linear, half, halved, linear.bias.bfloat16()),
    }
    small = nn.Linear(width, width).requires_grad_(False)
    quantise(small)
    ways["int8"] = partial(small, half)
    return {name: 2 * rows * width * width / measuring.seconds(way) for name, way in ways.items()}
