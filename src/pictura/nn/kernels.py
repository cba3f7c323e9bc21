"""Other ways to compute the layers that networks are made of, for CPUs, chosen by measurement.

`accelerate(network)` changes how its linear and convolutional layers and its attention compute, nothing
else: modules, parameters and their names stay, and where gradients are wanted, and on other devices, they
compute as torch's. `plain(network)` takes it back. What is quickest differs between processors; `rates`
measures it once on each: products by oneDNN instead of torch's matrix library (on an AMD processor 2.3 times
as fast), also those of attention; 3x3 convolutions by Winograd's method (`tiled`). Freed memory is kept for
the next layer. With `PICTURA_KERNELS=torch` in the environment all stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product as product_of

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura import measuring
from pictura.nn import memory, tiled
from pictura.nn.resnet import Upsample
from pictura.nn.rows import deal
from pictura.nn.tiled import alone, ours

GAIN = 1.1  # another way than torch's must be this much quicker to be worth it
QUERIES = 256  # of a head at a time
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def accelerate(network: nn.Module, *, keep: bool = True) -> nn.Module:
    """`network` itself, its plain linear and convolutional layers made ready to compute the quickest way.

    Freed memory is kept for what is allocated next (`memory.reuse`). `keep`: so are transformed weights of
    convolutions on small maps."""
    if os.environ.get("PICTURA_KERNELS") == "torch":
        return network
    memory.reuse()
    for module in network.modules():
        if hasattr(type(module), "mixing"):
            module.mixing = attention  # type: ignore[assignment]
        elif type(module) is nn.Linear:
            module.__class__ = Linear
        elif type(module) is nn.Conv2d and tiled.fits(module):
            module.__class__ = tiled.Conv3x3
            module.keep = keep  # type: ignore[assignment]
        elif type(module) is Upsample:
            module.__class__ = tiled.Doubling
    return network


def plain(network: nn.Module) -> nn.Module:
    """`network` itself as it was before `accelerate`, without what that kept in memory."""
    for module in network.modules():
        if hasattr(type(module), "mixing"):
            module.__dict__.pop("mixing", None)
        elif type(module) is Linear:
            module.__class__ = nn.Linear  # type: ignore[assignment]
        elif type(module) is tiled.Conv3x3:
            for name in ("kept", "keep"):
                module.__dict__.pop(name, None)
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
        elif type(module) is tiled.Doubling:
            module.__class__ = Upsample  # type: ignore[assignment]
    return network


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return (product() if ours(x, self.weight, self.bias) else F.linear)(x, self.weight, self.bias)


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear by oneDNN, which torch itself asks for convolutions and for bfloat16 only."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def product() -> Product:
    """The quickest F.linear in float32 on this machine."""
    found = rates("products")
    return by_onednn if found.get("onednn", 0) > GAIN * found["linear"] else F.linear


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.scaled_dot_product_attention, (b, h, n, d) -> (b, h, n, d), the quickest way. `bias` is anything that
    broadcasts to (b, h, n, m), booleans where true is read."""
    if ours(q, k, v, dtypes=(torch.float32, torch.bfloat16)):
        found = rates("attentions")
        if found[f"by head {q.dtype}"] > GAIN * found[f"fused {q.dtype}"]:
            return by_head(q, k, v, bias)
    return F.scaled_dot_product_attention(q, k, v, bias)


def by_head(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Head by head, some queries at a time, so that scores stay in the processor's caches."""
    multiply = product() if q.dtype == torch.float32 else F.linear
    b, h, n, d = q.shape
    q, k, v = (q * d**-0.5).contiguous(), k.contiguous(), v.transpose(2, 3).contiguous()
    found = q.new_empty(b, n, h, v.shape[2])
    if bias is not None:
        if bias.dtype == torch.bool:
            bias = torch.zeros(bias.shape, dtype=q.dtype).masked_fill(~bias, float("-inf"))
        bias = bias.expand(b, h, n, k.shape[2])

    def some(part: tuple[int, int, slice]) -> None:
        i, j, rows = part
        scores = multiply(q[i, j, rows], k[i, j], None)
        scores = scores if bias is None else scores + bias[i, j, rows]
        found[i, rows, j] = multiply(torch.softmax(scores, -1), v[i, j], None)

    cuts = [slice(at, at + QUERIES) for at in range(0, n, QUERIES)]
    deal(some, list(product_of(range(b), range(h), cuts)))
    return found.transpose(1, 2)


def rates(of: str) -> Mapping[str, float]:
    """What one thread does on this machine: floating-point operations a second by the name of the way."""
    return measuring.kept(of, _MEASURES[of])


@alone
def _products() -> dict[str, float]:
    x, weight = torch.full((512, 640), 0.1), torch.full((640, 640), 0.1)
    ways: dict[str, Product] = {"linear": F.linear}
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        ways["onednn"] = by_onednn
    work = 2 * 512 * 640 * 640
    return {n: work / measuring.seconds(partial(way, x, weight, None)) for n, way in ways.items()}


@alone
def _attentions() -> dict[str, float]:
    found: dict[str, float] = {}
    work = 4 * 2 * 1024**2 * 64
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.full((1, 2, 1024, 64), 0.1, dtype=dtype)
        for name, way in (("fused", F.scaled_dot_product_attention), ("by head", by_head)):
            found[f"{name} {dtype}"] = work / measuring.seconds(partial(way, q, q, q))
    return found


_MEASURES = {"products": _products, "attentions": _attentions}
