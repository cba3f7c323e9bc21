"""3x3 convolutions by Winograd's method where that is quicker: layers, and parts of their answers.

`tiled(layer, x)` says whether it is, and then computes the answer a band of rows after the other, each for
itself. The products of all places of a tile are one convolution of 1x1 in as many groups, which oneDNN
computes without rearranging a thing; elsewhere they are a batch of matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura import measuring
from pictura.nn import winograd
from pictura.nn.resnet import Upsample
from pictura.nn.rows import like_dealt

GAIN = 1.1  # so much quicker it must be to be worth it
SHARE = 0.25  # of the free memory that transformed weights may take
LEAST_TILES = 16  # below that, reading four times the weights costs more than the products save
MANY_TILES = 256  # from there on weights are transformed each time, for a tenth of the time and no memory
LEAST_CHANNELS = 16  # what oneDNN computes side by side


def ours(x: Tensor, *weights: Tensor | None, dtypes: Sequence[torch.dtype] = (torch.float32,)) -> bool:
    """Whether other ways than torch's may be taken: on a CPU, no gradient wanted."""
    if x.dtype not in dtypes or x.device.type != "cpu":
        return False
    return not torch.is_grad_enabled() or not any(t is not None and t.requires_grad for t in (x, *weights))


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


class Conv3x3(nn.Conv2d):
    """For small maps keeps transformed weights, made again when the weight is another or changed in place."""

    kept: tuple[Any, Tensor] | None = None
    keep = True

    def forward(self, x: Tensor) -> Tensor:
        way = tiled(self, x)
        return super().forward(x) if way is None else way.whole(x)

    def __getstate__(self) -> dict[str, Any]:
        """A copy keeps its own: oneDNN's cannot be copied."""
        return {name: value for name, value in vars(self).items() if name != "kept"}

    def transformed(self, plan: winograd.Plan, dealt: bool) -> Tensor | None:
        weight, f = self.weight.detach(), plan.m.f
        if dealt or plan.b * plan.m.tiles(plan.h, plan.w) >= MANY_TILES:
            u = winograd.transform(weight, f)
            return like_dealt(partial(pack, u, plan.tiles)) if dealt else pack(u, plan.tiles)
        if f > 1 or not self.keep:
            return None
        key = (weight.data_ptr(), weight._version, weight.shape, plan.tiles, torch.get_num_threads())
        if self.kept is None or self.kept[0] != key:
            self.kept = None
            if 4 * weight.numel() * weight.element_size() > SHARE * measuring.free_memory():
                return None
            self.kept = key, pack(winograd.transform(weight), plan.tiles)
        return self.kept[1]


def fits(module: nn.Conv2d) -> bool:
    alike = module.kernel_size == (3, 3) and module.padding == (1, 1) and module.padding_mode == "zeros"
    return alike and module.stride == module.dilation == (1, 1) and module.groups == 1


class Doubling(Upsample):
    """An `Upsample` that makes no map of repeated values."""

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        doubled = size is None or size == (2 * x.shape[2], 2 * x.shape[3])
        way = tiled(self.conv, x, 2) if doubled else None
        return super().forward(x, size) if way is None else way.whole(x)


@dataclass(frozen=True, kw_only=True)
class Tiled:
    """A convolution of maps of one shape, its weights transformed."""

    channels: int
    plan: winograd.Plan
    weights: Tensor
    bias: Tensor | None

    def band(
        self, x: Tensor, found: Tensor, band: tuple[int, int], fill: winograd.Fill, add: bool = False
    ) -> None:
        products = partial(multiply, u=self.weights, bias=self.bias)
        winograd.convolve(x, found, self.plan, band, products, fill, add)

    def whole(self, x: Tensor) -> Tensor:
        f, (b, _, h, w) = self.plan.m.f, x.shape
        found = torch.empty(b, self.channels, f * h, f * w, memory_format=torch.channels_last)
        for band in self.plan.bands:
            self.band(x, found, band, lambda rows, room: room.copy_(rows))
        return found


def tiled(layer: nn.Module, x: Tensor, f: int = 1, *, dealt: bool = False) -> Tiled | None:
    """`layer` for maps like x, repeated to f times the sides, where Winograd's method is quicker. `dealt`:
    its bands will be dealt out to threads of their own."""
    if not isinstance(layer, Conv3x3) or x.ndim != 4 or not ours(x, layer.weight, layer.bias):
        return None
    m, o = winograd.method(f), layer.out_channels
    if not worthwhile(o, layer.in_channels, len(x) * m.tiles(*x.shape[2:]), f):
        return None
    plan = winograd.plan(x, m)
    weights = layer.transformed(plan, dealt)
    if weights is None:
        return None
    bias = None if layer.bias is None else winograd.spread(layer.bias.detach(), f)
    return Tiled(channels=o, plan=plan, weights=weights, bias=bias)


def worthwhile(o: int, c: int, tiles: int, f: int = 1) -> bool:
    """Whether Winograd's method is quicker from c channels to o on so many tiles: products and what else it
    does, against the direct way."""
    if tiles < LEAST_TILES or min(c, o) < LEAST_CHANNELS:
        return False
    found, places = rates(), winograd.method(f).n ** 2
    products = 2 * places * f * f * tiles * o * c / max(found["grouped"], found["batched"])
    direct = 18 * (f * winograd.OUT) ** 2 * tiles * o * c / found["direct"]
    return GAIN * (products + tiles * (f * f * o + c) * found["tile"]) < direct


def pack(u: Tensor, tiles: int) -> Tensor:
    """Transformed weights (nn, o, c), ready for products with (tiles, nn, c) the quickest way."""
    return grouped(u, tiles) if rates()["grouped"] >= rates()["batched"] else batched(u)


def grouped(u: Tensor, tiles: int) -> Tensor:
    """As oneDNN keeps them for exactly so many tiles and as many threads as there are. For others it may
    rearrange them each time, which can take thirty times as long as the products."""
    places, _, c = u.shape
    size = [1, places * c, 1, tiles]
    u = u.view(-1, c, 1, 1)
    return torch.ops.mkldnn._reorder_convolution_weight(u, [0, 0], [1, 1], [1, 1], places, size)


def batched(u: Tensor) -> Tensor:
    return u.transpose(1, 2)


def multiply(v: Tensor, u: Tensor, bias: Tensor | None) -> Tensor:
    """The products of each place, (t, nn, c) with packed weights -> (t, nn, o); bias (nn, o)."""
    t, places, _ = v.shape
    if u.is_mkldnn:
        bias = None if bias is None else bias.flatten()
        v = v.view(1, 1, t, -1).permute(0, 3, 1, 2)
        y = torch.ops.mkldnn._convolution_pointwise(
            v, u, bias, [0, 0], [1, 1], [1, 1], places, "none", [], ""
        )
        return y.permute(0, 2, 3, 1).reshape(t, places, -1)
    y = torch.bmm(v.transpose(0, 1), u).transpose(0, 1).contiguous()
    return y if bias is None else y.add_(bias)


def rates() -> Mapping[str, float]:
    """What one thread does on this machine: floating-point operations a second of the direct way and of both
    kinds of products, and "tile", the seconds that all else takes, by tile and channel."""
    return measuring.kept("winograd", _rates)


@alone
def _rates() -> dict[str, float]:
    c, side = 320, 32
    x = torch.full((1, c, side, side), 0.1).to(memory_format=torch.channels_last)
    weight = torch.full((c, c, 3, 3), 0.1).to(memory_format=torch.channels_last)
    found, plan = torch.empty_like(x), winograd.plan(x, winograd.method())
    u, v = winograd.transform(weight), torch.full((plan.tiles, plan.m.n**2, c), 0.1)

    def beside() -> None:
        for band in plan.bands:
            winograd.convolve(x, found, plan, band, lambda v: v, lambda rows, room: room.copy_(rows))

    ways = {"batched": batched(u)}
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight"):
        ways["grouped"] = grouped(u, plan.tiles)
    direct = measuring.seconds(lambda: F.conv2d(x, weight, None, padding=1))
    return {
        "direct": 18 * side * side * c * c / direct,
        "tile": measuring.seconds(beside) / (plan.m.tiles(side, side) * 2 * c),
        "grouped": 0.0,
        **{n: 2 * v.numel() * c / measuring.seconds(partial(multiply, v, u, None)) for n, u in ways.items()},
    }
