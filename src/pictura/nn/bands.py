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

BYTES = 4 << 20  # of a band's input: what fits into the processor's caches, with something to spare
ROWS = 14  # at least so many: with the rows above and below, full tiles of Winograd's method
Prepare = Callable[[Tensor], Tensor]


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

    def mean(of: Prepare) -> Tensor:
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

    def prepare(rows: Tensor) -> Tensor:
        normed = torch.addcmul(shift, rows, scale).to(rows.dtype)
        return F.silu(normed, inplace=True) if ACTIVATIONS[act] is F.silu else ACTIVATIONS[act](normed)

    return prepare


def empty(like: Tensor, channels: int, scale: float = 1) -> Tensor:
    memory.trim()
    shape = (like.shape[0], channels, int(like.shape[2] * scale), int(like.shape[3] * scale))
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def convolve(layer: nn.Conv2d, x: Tensor, prepare: Prepare, put: Callable[[slice, Tensor], object]) -> None:
    """`put` is told rows and their part of layer(prepare(x)); `layer` is a 3x3 convolution of stride 1."""

    def part(rows: tuple[int, int]) -> None:
        start, end = rows
        before, after = min(start, 1), min(x.shape[2] - end, 1)  # one more row on each side, if there is one
        found = layer(prepare(x[:, :, start - before : end + after]))
        put(slice(start, end), found[:, :, before : found.shape[2] - after])

    with kernels.holding(layer):
        deal(part, list(bands(x)))


def convolution(layer: nn.Conv2d, x: Tensor, prepare: Prepare) -> Tensor:
    """layer(prepare(x))"""
    found = empty(x, layer.out_channels)
    convolve(layer, x, prepare, lambda rows, part: found[:, :, rows].copy_(part))
    return found


def resnet(block: ResnetBlock, x: Tensor) -> Tensor:
    """block(x), in the place of x."""
    h = convolution(block.conv1, x, norm(block.norm1, block.act, x))
    sum_ = shortcut(block.conv_shortcut, x) if hasattr(block, "conv_shortcut") else x
    convolve(block.conv2, h, norm(block.norm2, block.act, h), lambda rows, part: sum_[:, :, rows].add_(part))
    del h
    return sum_.contiguous(memory_format=torch.channels_last)


def shortcut(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """layer(x), a 1x1 convolution, in the place of x where that has room."""
    o = layer.out_channels
    found = x[:, :o] if o <= x.shape[1] else empty(x, o)
    deal(lambda rows: found[:, :, slice(*rows)].copy_(layer(x[:, :, slice(*rows)])), list(bands(x)))
    return found


def upsample(layer: Upsample, x: Tensor) -> Tensor:
    """layer(x), twice the sides."""
    found = empty(x, layer.conv.out_channels, 2)

    def part(rows: tuple[int, int]) -> None:
        start, end = rows
        before, after = min(start, 1), min(x.shape[2] - end, 1)
        grown = layer(x[:, :, start - before : end + after])
        found[:, :, 2 * start : 2 * end] = grown[:, :, 2 * before : grown.shape[2] - 2 * after]

    with kernels.holding(layer.conv):
        deal(part, list(bands(x)))
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
