"""Other ways to compute the layers that networks are made of, for CPUs, chosen by measurement.

`accelerate(network)` changes how its linear and convolutional layers and its attention compute, nothing
else: modules, parameters and their names stay, and where gradients are wanted, and on other devices, they
compute as torch's. `plain(network)` takes it back. What is quickest differs between processors; `rates`
measures it once on each: products by oneDNN instead of torch's matrix library (on an AMD processor 2.3 times
as fast), also those of attention; 3x3 convolutions by Winograd's method. Freed memory is kept for the next
layer. With `PICTURA_KERNELS=torch` in the environment all stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product as product_of
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura import measuring
from pictura.nn import memory, winograd
from pictura.nn.rows import deal

GAIN = 1.1  # another way than torch's must be this much quicker to be worth it
SHARE = 0.25  # of the free memory that transformed weights may take
LEAST_TILES = 16  # below that, reading four times the weights costs more than the products save
MANY_TILES = 256  # from there on, transforming weights each time costs a few percent, and no memory
QUERIES = 256  # of a head at a time
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def accelerate(network: nn.Module, *, reuse: bool = True, keep: bool = True) -> nn.Module:
    """`network` itself, its plain linear and convolutional layers made ready to compute the quickest way.

    `reuse`: keep freed memory too (`memory.reuse`), quicker where maps come and go, but the process stays as
    large as it was at most. `keep`: keep transformed weights of convolutions on small maps."""
    if os.environ.get("PICTURA_KERNELS") == "torch":
        return network
    if reuse:
        memory.reuse()
    for module in network.modules():
        if hasattr(type(module), "mixing"):
            module.mixing = attention  # type: ignore[assignment]
        elif type(module) is nn.Linear:
            module.__class__ = Linear
        elif type(module) is nn.Conv2d and _fits_winograd(module):
            module.__class__ = Conv3x3
            module.keep = keep  # type: ignore[assignment]
    return network


def plain(network: nn.Module) -> nn.Module:
    """`network` itself as it was before `accelerate`, without what that kept in memory."""
    for module in network.modules():
        if hasattr(type(module), "mixing"):
            module.__dict__.pop("mixing", None)
        elif type(module) is Linear:
            module.__class__ = nn.Linear  # type: ignore[assignment]
        elif type(module) is Conv3x3:
            for name in ("kept", "keep", "holding"):
                module.__dict__.pop(name, None)
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return network


def ours(x: Tensor, *weights: Tensor | None, dtypes: Sequence[torch.dtype] = (torch.float32,)) -> bool:
    """Whether these ways may be taken: on a CPU, no gradient wanted."""
    if x.dtype not in dtypes or x.device.type != "cpu":
        return False
    return not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in (x, *weights))


class Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return (product() if ours(x, self.weight, self.bias) else F.linear)(x, self.weight, self.bias)


class Conv3x3(nn.Conv2d):
    """For small maps keeps transformed weights, made again when the weight is another or changed in place."""

    kept: tuple[Any, Tensor] | None = None
    holding = False
    keep = True

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4 and ours(x, self.weight, self.bias):
            tiles = winograd.tiles(*x.shape[2:])
            if worthwhile(self.out_channels, self.in_channels, tiles):
                transformed = self._transformed(tiles)
                if transformed is not None:
                    return winograd.convolve(x, transformed, self.bias, multiply)
        return super().forward(x)

    def _transformed(self, tiles: int) -> Tensor | None:
        weight = self.weight
        if tiles >= MANY_TILES and not self.holding:
            return winograd.transform(weight.detach())
        if not self.keep and not self.holding:
            return None
        key = (weight.data_ptr(), weight._version, weight.shape)
        if self.kept is None or self.kept[0] != key:
            self.kept = None
            if 4 * weight.numel() * weight.element_size() > SHARE * measuring.free_memory():
                return None
            self.kept = key, winograd.transform(weight.detach())
        return self.kept[1]


@contextmanager
def holding(layer: nn.Module) -> Iterator[None]:
    """Transformed weights of `layer` stay for the block: several parts of one map follow each other."""
    if not isinstance(layer, Conv3x3):
        yield
        return
    before, layer.holding = layer.kept, True
    try:
        yield
    finally:
        layer.kept, layer.holding = before, False


def _fits_winograd(module: nn.Conv2d) -> bool:
    alike = module.kernel_size == (3, 3) and module.padding == (1, 1) and module.padding_mode == "zeros"
    return alike and module.stride == module.dilation == (1, 1) and module.groups == 1


def by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear by oneDNN, which torch itself asks for convolutions and for bfloat16 only."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def product() -> Product:
    """The quickest F.linear in float32 on this machine."""
    found = rates("products")
    return by_onednn if found.get("onednn", 0) > GAIN * found["linear"] else F.linear


def multiply(v: Tensor, u: Tensor) -> Tensor:
    """The 36 products of Winograd's method: (36, t, c) with (36, o, c) -> (36, t, o)."""
    if product() is F.linear:
        return torch.bmm(v, u.transpose(1, 2))
    found = v.new_empty(len(v), v.shape[1], u.shape[1])
    deal(lambda place: found[place].copy_(by_onednn(v[place], u[place])), range(len(u)))
    return found


def worthwhile(o: int, c: int, tiles: int) -> bool:
    """Whether Winograd's method is quicker from c channels to o on so many tiles: products and what else it
    does, against the direct way."""
    if tiles < LEAST_TILES or c < 16:
        return False
    found = rates("convolutions")
    products = 2 * winograd.SIDE**2 * tiles * o * c / max(rates("products").values())
    direct = 18 * winograd.OUT**2 * tiles * o * c / found["direct"]
    return GAIN * (products + tiles * (o + c) * found["tile"]) < direct


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
    """What one thread does on this machine: floating-point operations a second by the name of the way, and
    "tile", the seconds that Winograd's method takes beside the products, by tile and channel."""
    return measuring.kept(of, _MEASURES[of])


def alone(measure: Callable[[], dict[str, float]]) -> Callable[[], dict[str, float]]:
    """`measure` with one thread and without gradients."""

    def measured() -> dict[str, float]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.no_grad():
                return measure()
        finally:
            torch.set_num_threads(threads)

    return measured


@alone
def _products() -> dict[str, float]:
    x, weight = torch.full((512, 640), 0.1), torch.full((640, 640), 0.1)
    ways: dict[str, Product] = {"linear": F.linear}
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        ways["onednn"] = by_onednn
    work = 2 * 512 * 640 * 640
    return {n: work / measuring.seconds(partial(way, x, weight, None)) for n, way in ways.items()}


@alone
def _convolutions() -> dict[str, float]:
    c, side = 320, 32
    tiles = (side // winograd.OUT) ** 2
    x = torch.full((1, c, side, side), 0.1).to(memory_format=torch.channels_last)
    weight = torch.full((c, c, 3, 3), 0.1).to(memory_format=torch.channels_last)
    u = torch.full((winograd.SIDE**2, c, c), 0.1)
    beside = measuring.seconds(lambda: winograd.convolve(x, u, None, lambda v, u: v))
    direct = 18 * side * side * c * c / measuring.seconds(lambda: F.conv2d(x, weight, None, padding=1))
    return {"direct": direct, "tile": beside / (tiles * 2 * c)}


@alone
def _attentions() -> dict[str, float]:
    found: dict[str, float] = {}
    work = 4 * 2 * 1024**2 * 64
    for dtype in (torch.float32, torch.bfloat16):
        q = torch.full((1, 2, 1024, 64), 0.1, dtype=dtype)
        for name, way in (("fused", F.scaled_dot_product_attention), ("by head", by_head)):
            found[f"{name} {dtype}"] = work / measuring.seconds(partial(way, q, q, q))
    return found


_MEASURES = {"products": _products, "convolutions": _convolutions, "attentions": _attentions}
