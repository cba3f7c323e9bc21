"""T2I-Adapter (Mou et al. 2023): features of a picture for each level of a UNet's way down, the same at every
step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pictura.errors import PresetError, shown

__all__ = ["T2IAdapter"]

KINDS = ("full_adapter", "full_adapter_xl", "light_adapter")


class Residual(nn.Module):
    def __init__(self, width: int, last: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(width, width, 3, padding=1)
        self.block2 = nn.Conv2d(width, width, last, padding=last // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(F.relu(self.block1(x))) + x


class Block(nn.Module):
    """Maybe half as large, maybe wider, then residual blocks; a light one works in a quarter of the width."""

    def __init__(self, inner: int, outer: int, layers: int, *, down: bool, light: bool) -> None:
        super().__init__()
        self.down = down
        width = outer // 4 if light else outer
        if light or inner != outer:
            self.in_conv = nn.Conv2d(inner, width, 1)
        self.resnets = nn.Sequential(*(Residual(width, 3 if light else 1) for _ in range(layers)))
        if light:
            self.out_conv = nn.Conv2d(width, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2, ceil_mode=True) if self.down else x
        x = self.in_conv(x) if hasattr(self, "in_conv") else x
        x = self.resnets(x)
        return self.out_conv(x) if hasattr(self, "out_conv") else x


class Levels(nn.Module):
    def __init__(self, kind: str, channels: int, widths: tuple[int, ...], layers: int, factor: int) -> None:
        super().__init__()
        self.factor, first = factor, channels * factor**2
        light = kind == "light_adapter"
        if not light:
            self.conv_in = nn.Conv2d(first, widths[0], 3, padding=1)
            first = widths[0]
        inner = (first, *widths[:-1])
        halved = {i for i in range(1, len(widths)) if kind != "full_adapter_xl" or i == 2}
        plan = [(a, b, i in halved) for i, (a, b) in enumerate(zip(inner, widths, strict=True))]
        if kind == "full_adapter_xl":  # widens at two levels only, as the published one does
            plan = [(a if i in (1, 2) else b, b, down) for i, (a, b, down) in enumerate(plan)]
        if light:
            plan.append((widths[-1], widths[-1], True))
        self.widths = tuple(outer for _, outer, _ in plan)
        self.body = nn.ModuleList(Block(a, b, layers, down=down, light=light) for a, b, down in plan)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.pixel_unshuffle(x, self.factor)
        x = self.conv_in(x) if hasattr(self, "conv_in") else x
        found = []
        for block in self.body:
            x = block(x)
            found.append(x)
        return found


class T2IAdapter(nn.Module):
    """`config` as of diffusers; PresetError for a kind there is no code for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        kind = config.get("adapter_type", "full_adapter")
        if kind not in KINDS:
            raise PresetError(
                f"T2I-Adapter: adapter_type {shown(kind)} is not supported; possible: {', '.join(KINDS)}"
            )
        widths = tuple(config.get("channels") or (320, 640, 1280, 1280))
        self.channels: int = config.get("in_channels", 3)
        factor = config.get("downscale_factor", 8)
        self.adapter = Levels(kind, self.channels, widths, config.get("num_res_blocks", 2), factor)

    def forward(self, hint: Tensor) -> list[Tensor]:
        """A picture (b, c, h, w) in 0..1 -> what to add to each level, (b, d, h', w')."""
        return self.adapter(hint)
