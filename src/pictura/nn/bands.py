"""Convolutional layers on large maps, some rows at a time, with the same result in a fraction of the memory.

A residual block needs its input twice, its normed and activated input, and its inner map. Here what is normed
exists only for the rows being convolved, and the sum takes the input's place. Group norms see the whole map,
since their statistics are gathered first, so there are no seams. Without gradients only.

Sizes: b pictures, c channels, h rows, w columns, g groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.nn import kernels, memory
from pictura.nn.resnet import ACTIVATIONS, Downsample, ResnetBlock, Upsample
from pictura.nn.rows import deal
from pictura.nn.tiled import tiled

BYTES = 4 << 20  # of a band's input: what fits into the processor's caches, with something to spare
ROWS = 14  # at least so many: one more on each side is computed for nothing
Prepare = Callable[..., Tensor]  # some rows of a map, and possibly where to -> them prepared


def bands(x: Tensor) -> Iterator[tuple[int, int]]:
    """Row ranges that cover x, each an even number and about `BYTES` long, at least `ROWS` though. What a map
    is cut into depends on nothing but its shape."""
    row = x[0, :, 0].numel() * x.element_size()
    n = max(ROWS, BYTES // row // 4 * 4 - 2) if x.shape[2] > ROWS + 2 else x.shape[2]
    for start in range(0, x.shape[2], n):
        yield start, min(start + n, x.shape[2])


def norm(layer: nn.GroupNorm, act: str, x: Tensor) -> Prepare:
    """act(layer(.)) for rows of x, with the statistics of all of x."""
    (b, c, h, w), groups = x.shape, layer.num_groups

    def mean(of: Callable[[Tensor], Tensor]) -> Tensor:
        """(b, c, 1, 1), the same for all channels of a group, summed up in float64."""
        cuts = list(bands(x))
        sums = x.new_empty(len(cuts), b, c, dtype=torch.float64)

        def one(i: int) -> None:
            sums[i] = of(x[:, :, slice(*cuts[i])].float()).sum((2, 3))

        deal(one, range(len(cuts)))
        total = sums.sum(0).view(b, groups, -1).sum(-1) / (c // groups * h * w)
        return total.float().repeat_interleave(c // groups, 1)[:, :, None, None]

    center = mean(lambda rows: rows)
    variance = mean(lambda rows: (rows - center).square_())
    scale = torch.rsqrt(variance + layer.eps) * layer.weight[:, None, None]
    shift = layer.bias[:, None, None] - center * scale

    def prepare(rows: Tensor, to: Tensor | None = None) -> Tensor:
        normed = torch.addcmul(shift, rows, scale, out=to).to(rows.dtype)
        if ACTIVATIONS[act] is F.silu:
            return F.silu(normed, inplace=True)
        return ACTIVATIONS[act](normed) if to is None else to.copy_(ACTIVATIONS[act](normed))

    return prepare


def empty(like: Tensor, channels: int, scale: float = 1) -> Tensor:
    shape = (like.shape[0], int(like.shape[2] * scale), int(like.shape[3] * scale), channels)
    return memory.empty(shape, like.dtype).permute(0, 3, 1, 2)


def convolve(layer: nn.Conv2d, x: Tensor, prepare: Prepare, found: Tensor, add: bool = False) -> Tensor:
    """layer(prepare(x)) into, or onto, `found`; `layer` is a 3x3 convolution of stride 1."""
    way = tiled(layer, x, dealt=True)

    def part(rows: tuple[int, int]) -> None:
        start, end = rows
        before, after = min(start, 1), min(x.shape[2] - end, 1)  # one more row on each side, if there is one
        values = layer(prepare(x[:, :, start - before : end + after]))
        values = values[:, :, before : values.shape[2] - after]
        lines = found[:, :, start:end]
        lines.add_(values) if add else lines.copy_(values)

    if way is None:
        deal(part, list(bands(x)))
    else:
        deal(lambda band: way.band(x, found, band, prepare, add), way.plan.bands)
    return found


def convolution(layer: nn.Conv2d, x: Tensor, prepare: Prepare) -> Tensor:
    """layer(prepare(x))"""
    return convolve(layer, x, prepare, empty(x, layer.out_channels))


def resnet(block: ResnetBlock, x: Tensor) -> Tensor:
    """block(x), in the place of x."""
    h = convolution(block.conv1, x, norm(block.norm1, block.act, x))
    sum_ = shortcut(block.conv_shortcut, x) if hasattr(block, "conv_shortcut") else x
    convolve(block.conv2, h, norm(block.norm2, block.act, h), sum_, add=True)
    del h
    return sum_ if sum_ is x else empty(x, sum_.shape[1]).copy_(sum_)


def shortcut(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """layer(x), a 1x1 convolution, in the place of x where that has room."""
    o = layer.out_channels
    found = x[:, :o] if o <= x.shape[1] else empty(x, o)
    linear = kernels.product() if x.dtype == torch.float32 else F.linear

    def part(rows: tuple[int, int]) -> None:
        last = x[:, :, slice(*rows)].permute(0, 2, 3, 1)
        values = linear(last, layer.weight.flatten(1), layer.bias)
        found[:, :, slice(*rows)] = values.permute(0, 3, 1, 2)

    deal(part, list(bands(x)))
    return found


def upsample(layer: Upsample, x: Tensor) -> Tensor:
    """layer(x), twice the sides."""
    found = empty(x, layer.conv.out_channels, 2)
    way = tiled(layer.conv, x, 2, dealt=True)

    def part(rows: tuple[int, int]) -> None:
        start, end = rows
        before, after = min(start, 1), min(x.shape[2] - end, 1)
        grown = layer(x[:, :, start - before : end + after])
        found[:, :, 2 * start : 2 * end] = grown[:, :, 2 * before : grown.shape[2] - 2 * after]

    if way is None:
        deal(part, list(bands(x)))
    else:
        deal(lambda band: way.band(x, found, band, lambda rows, room: room.copy_(rows)), way.plan.bands)
    return found


def downsample(layer: Downsample, x: Tensor) -> Tensor:
    """layer(x) of an autoencoder, half the sides."""
    found = empty(x, layer.conv.out_channels, 0.5)

    def part(rows: tuple[int, int]) -> None:
        start, end = rows
        halved = layer(x[:, :, start : end + 1])
        found[:, :, start // 2 : end // 2] = halved[:, :, : end // 2 - start // 2]

    deal(part, list(bands(x)))
    return found
