"""The transformer of Stable Diffusion 3 and 3.5: MMDiT (Esser et al. 2024), with the second attention of
3.5 medium. Configuration and parameter names are those of diffusers' `SD3Transformer2DModel`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pictura.errors import ParameterError
from pictura.nn.block_cache import BlockCache
from pictura.nn.mmdit import Conditioning, JointBlock, Modulation, normal, shifted

DEFAULTS: dict[str, Any] = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 18,
    "attention_head_dim": 64, "num_attention_heads": 18, "joint_attention_dim": 4096,
    "caption_projection_dim": 1152, "pooled_projection_dim": 2048, "pos_embed_max_size": 96,
    "dual_attention_layers": (), "qk_norm": None,
}  # fmt: skip


class Patches(nn.Module):
    """A latent to tokens, with a table of positions of which the middle is used."""

    pos_embed: Tensor

    def __init__(self, channels: int, width: int, patch: int, side: int, base: int) -> None:
        super().__init__()
        self.patch, self.side = patch, side
        self.proj = nn.Conv2d(channels, width, patch, patch)
        self.register_buffer("pos_embed", _table(width, side, base))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, h w / p^2, d). ParameterError when the table is too small."""
        h, w = x.shape[-2] // self.patch, x.shape[-1] // self.patch
        if max(h, w) > self.side:
            raise ParameterError(
                f"size is too large for this model: it has positions for {self.side}x{self.side} patches, "
                f"the picture has {w}x{h}; choose a smaller size",
                parameter="size",
            )
        top, left = (self.side - h) // 2, (self.side - w) // 2
        table = self.pos_embed.view(self.side, self.side, -1)[top : top + h, left : left + w]
        return self.proj(x).flatten(2).transpose(1, 2) + table.flatten(0, 1)


class MMDiT(nn.Module):
    """`config` is a diffusers `transformer/config.json`; what it leaves out is as in `DEFAULTS`."""

    streams = ("transformer_blocks",)

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = {name: config.get(name, default) for name, default in DEFAULTS.items()}
        a = self.config
        heads, size, patch = a["num_attention_heads"], a["attention_head_dim"], a["patch_size"]
        width, layers = heads * size, a["num_layers"]
        self.patch, self.channels = patch, a["out_channels"] or a["in_channels"]
        self.pos_embed = Patches(
            a["in_channels"], width, patch, a["pos_embed_max_size"], a["sample_size"] // patch
        )
        self.time_text_embed = Conditioning(a["pooled_projection_dim"], width)
        self.context_embedder = nn.Linear(a["joint_attention_dim"], a["caption_projection_dim"])
        self.transformer_blocks = nn.ModuleList(
            JointBlock(
                width, heads, size,
                normed=a["qk_norm"] is not None, dual=i in a["dual_attention_layers"], last=i == layers - 1,
            )
            for i in range(layers)
        )  # fmt: skip
        self.norm_out = Modulation(width, 2)
        self.proj_out = nn.Linear(width, patch * patch * self.channels)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        pooled: Tensor,
        residuals: Sequence[Tensor] = (),
        mask: Tensor | None = None,
        skip: Collection[int] = (),
        cache: BlockCache | None = None,
    ) -> Tensor:
        """Velocity (noise - picture) of x (b, c, h, w) at time (b,), 1000 times the noise's share; context
        (b, m, k), pooled (b, k').

        residuals: of a ControlNet, each (b, n, d), spread over the blocks. mask (b or 1, 1, m + n, m + n):
        what attends to what, text first. skip: blocks to leave out. cache: for one row alone, see
        `nn.block_cache`.
        """
        b, _, h, w = x.shape
        p, count = self.patch, len(self.transformer_blocks)
        x = given = first = self.pos_embed(x)
        c = self.time_text_embed(time, pooled)
        text = self.context_embedder(context)
        for i, block in enumerate(self.transformer_blocks):
            if i not in skip:
                x, text = block(x, text, c, mask=mask)
            if residuals and i < count - 1:
                x = x + residuals[int(i / (count / len(residuals)))]
            if cache is not None and i == 0:
                first = x
                if (rest := cache.rest(first - given)) is not None:
                    x = first + rest
                    break
        else:
            if cache is not None:
                cache.keep(first - given, x - first)
        scale, shift = self.norm_out(c)
        x = self.proj_out(shifted(normal(x), shift, scale))  # (b, n, p p c)
        return x.view(b, h // p, w // p, p, p, self.channels).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h, w)


def _table(width: int, side: int, base: int) -> Tensor:
    """(1, side^2, d): sin and cos of the column, then of the row, as if the side had `base` patches."""
    place = torch.arange(side, dtype=torch.float32) / (side / base)
    frequencies = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.outer(place.double(), frequencies)
    line = torch.cat([angles.sin(), angles.cos()], -1).float()  # (side, d / 2)
    columns, rows = line[None].expand(side, -1, -1), line[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], -1).view(1, side * side, width)
