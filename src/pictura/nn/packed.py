"""Convolutions that keep their weights as oneDNN reads them.

Else it rearranges them in every call, which for small maps takes longer than the products: a row of a UNet of
7 M parameters at 16x16 took 15.8 ms of one thread instead of 24.4 ms, measured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pictura.nn.tiled import ours

__all__ = ["pack"]


class Conv2d(nn.Conv2d):
    """Like torch's, (b, c, h, w) -> (b, c', h', w'). Weights are arranged again for maps of another shape and
    when they are others or were changed in place."""

    # What the weights were arranged for, they, and the weights themselves: no others get their address.
    kept: tuple[Any, Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not ours(x, self.weight, self.bias):
            return super().forward(x)
        weight = self.weight
        key = weight.data_ptr(), weight._version, x.shape, torch.get_num_threads()
        kept = self.kept  # read once: threads that find none each make their own
        where = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        if kept is None or kept[0] != key:
            arranged = torch.ops.mkldnn._reorder_convolution_weight(weight, *where, list(x.shape))
            kept = self.kept = key, arranged, weight.detach()
        return torch.ops.mkldnn._convolution_pointwise(x, kept[1], self.bias, *where, "none", [], "")

    def __getstate__(self) -> dict[str, Any]:
        """A copy keeps its own: oneDNN's cannot be copied."""
        return {name: value for name, value in vars(self).items() if name != "kept"}


def pack(network: nn.Module) -> nn.Module:
    """`network` itself, its plain convolutions made such, where torch has oneDNN."""
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight"):
        for module in network.modules():
            plain = type(module) is nn.Conv2d and module.padding_mode == "zeros"
            if plain and not isinstance(module.padding, str):
                module.__class__ = Conv2d
    return network
