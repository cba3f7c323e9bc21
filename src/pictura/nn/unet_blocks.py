"""The levels of a UNet, on the way down, in the middle and on the way up (Ronneberger et al. 2015), each
residual blocks with or without attention."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pictura.nn.attention import Reading, SpatialTransformer
from pictura.nn.resnet import Downsample, ResnetBlock, Upsample
from pictura.nn.unet_config import Settings


def resnet(s: Settings, inner: int, outer: int, divisor: float = 1.0) -> ResnetBlock:
    return ResnetBlock(
        inner, outer, time=s.time, groups=s.groups, eps=s.eps, act=s.act,
        scale_shift=s.scale_shift, dropout=s.dropout, divisor=divisor,
    )  # fmt: skip


def transformer(s: Settings, width: int, depth: int) -> SpatialTransformer:
    return SpatialTransformer(
        width, s.context, s.heads, depth,
        groups=s.groups, linear=s.linear, only_cross=s.only_cross, upcast=s.upcast,
    )  # fmt: skip


class Level(nn.Module):
    """Residual blocks, each followed by a transformer where the level has attention."""

    def __init__(self, s: Settings, widths: list[int], outer: int) -> None:
        super().__init__()
        if s.cross:
            self.attentions = nn.ModuleList(transformer(s, outer, depth) for depth in s.depths(s.layers))
        self.resnets = nn.ModuleList(resnet(s, inner, outer) for inner in widths)

    def layer(self, i: int, x: Tensor, time: Tensor, read: Reading) -> Tensor:
        x = self.resnets[i](x, time)
        return self.attentions[i](x, read) if hasattr(self, "attentions") else x


class DownBlock(Level):
    def __init__(self, s: Settings, inner: int, outer: int, *, down: bool) -> None:
        super().__init__(s, [inner] + [outer] * (s.layers - 1), outer)
        if down:
            self.downsamplers = nn.ModuleList([Downsample(outer, 1)])

    def forward(
        self, x: Tensor, time: Tensor, read: Reading, extra: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """The map for the next level, and the maps for the way up. `extra` is an adapter's addition: to the
        last layer where the level has attention, otherwise to the map for the next level, which is also a
        skip."""
        cross, skips = hasattr(self, "attentions"), []
        for i in range(len(self.resnets)):
            x = self.layer(i, x, time, read)
            if extra is not None and cross and i == len(self.resnets) - 1:
                x = x + extra
            skips.append(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            skips.append(x)
        if extra is not None and not cross:
            skips[-1] = x = x + extra
        return x, skips


class MidBlock(nn.Module):
    """A residual block; with attention also transformers, each followed by another residual block."""

    def __init__(self, s: Settings, width: int, divisor: float) -> None:
        super().__init__()
        if s.cross:
            self.attentions = nn.ModuleList([transformer(s, width, depth) for depth in s.depths(1)])
        self.resnets = nn.ModuleList(resnet(s, width, width, divisor) for _ in range(2 if s.cross else 1))

    def forward(self, x: Tensor, time: Tensor, read: Reading) -> Tensor:
        x = self.resnets[0](x, time)
        if hasattr(self, "attentions"):
            x = self.resnets[1](self.attentions[0](x, read), time)
        return x


class UpBlock(Level):
    """`before` and `skip` are the widths of the map that comes from the level below and of the last map of
    the way down that this level reads."""

    def __init__(self, s: Settings, before: int, skip: int, outer: int, *, up: bool) -> None:
        lower = [before] + [outer] * (s.layers - 1)
        side = [outer] * (s.layers - 1) + [skip]
        super().__init__(s, [a + b for a, b in zip(lower, side, strict=True)], outer)
        if up:
            self.upsamplers = nn.ModuleList([Upsample(outer)])

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        read: Reading,
        skips: list[Tensor],
        keep: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Takes from the end of `skips` what it reads; is as large as the next one left there. `keep` is told
        what the last layer reads from below."""
        for i in range(len(self.resnets)):
            if keep is not None and i == len(self.resnets) - 1:
                keep(x)
            x = self.layer(i, torch.cat([x, skips.pop()], 1), time, read)
        if hasattr(self, "upsamplers"):
            x = self.upsamplers[0](x, (skips[-1].shape[2], skips[-1].shape[3]))
        return x
