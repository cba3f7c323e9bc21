"""ControlNet (Zhang et al. 2023): a copy of a UNet's way down that sees a picture, and adds to its skips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.errors import PresetError, shown
from pictura.nn.attention import Reading
from pictura.nn.config import per_level
from pictura.nn.unet import UNet

__all__ = ["ControlNet"]

_UP = {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}


class Hint(nn.Module):
    """A picture (b, 3, h, w) in 0..1 -> (b, c, h / 8, w / 8), as many channels as the UNet's first map."""

    def __init__(self, channels: int, widths: tuple[int, ...], outer: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        blocks = []
        for inner, wider in zip(widths, widths[1:], strict=False):
            blocks += [nn.Conv2d(inner, inner, 3, padding=1), nn.Conv2d(inner, wider, 3, stride=2, padding=1)]
        self.blocks = nn.ModuleList(blocks)
        self.conv_out = nn.Conv2d(widths[-1], outer, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv_in(x))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


class ControlNet(UNet):
    """`config` is a ControlNet's of diffusers; parameters have its names."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        down = config.get("down_block_types") or ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
        unknown = [kind for kind in down if kind not in _UP]
        if unknown:
            possible = ", ".join(_UP)
            raise PresetError(
                f"ControlNet: down_block_types {shown(unknown[0])} is not supported; possible: {possible}"
            )
        super().__init__({**config, "up_block_types": [_UP[kind] for kind in reversed(down)]})
        del self.up_blocks, self.conv_norm_out, self.conv_out
        c = self.config
        widths = tuple(config.get("conditioning_embedding_out_channels") or (16, 32, 96, 256))
        self.flipped = config.get("controlnet_conditioning_channel_order", "rgb") == "bgr"
        self.pooled = bool(config.get("global_pool_conditions"))
        channels = config.get("conditioning_channels", 3)
        self.controlnet_cond_embedding = Hint(channels, widths, c.block_out_channels[0])
        outs = [c.block_out_channels[0]]
        layers = per_level("ControlNet", "layers_per_block", c.layers_per_block, len(self.down_blocks))
        for i, (width, count) in enumerate(zip(c.block_out_channels, layers, strict=True)):
            outs += [width] * (count + (i < len(layers) - 1))
        self.controlnet_down_blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for width in outs)
        self.controlnet_mid_block = nn.Conv2d(outs[-1], outs[-1], 1)

    def forward(  # type: ignore[override]  # another question
        self,
        sample: Tensor,
        time: Tensor,
        context: Tensor,
        hint: Tensor,
        added: Tensor | None = None,
        *,
        condition: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Inputs as of `UNet`, and the picture `hint` (b, 3, 8 h, 8 w) in 0..1 -> what to add to each skip
        and to the middle."""
        read = Reading(context)
        guided = self.config.time_cond_proj_dim is not None  # that of a distilled model
        vector = self.embed(time, added, None, condition if guided else None)
        x = self.conv_in(sample) + self.controlnet_cond_embedding(hint.flip(1) if self.flipped else hint)
        skips = [x]
        for block in self.down_blocks:
            x, more = block(x, vector, read)
            skips += more
        x = self.mid_block(x, vector, read)
        found = [net(skip) for net, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        middle = self.controlnet_mid_block(x)
        if self.pooled:
            found = [torch.mean(one, (2, 3), keepdim=True) for one in found]
            middle = torch.mean(middle, (2, 3), keepdim=True)
        return found, middle
