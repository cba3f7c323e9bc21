"""The transformer of FLUX.1: joint blocks, then single ones, with rotary positions. Configuration and
parameter names are those of diffusers' `FluxTransformer2DModel`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pictura.nn.block_cache import BlockCache
from pictura.nn.mmdit import Conditioning, JointBlock, Modulation, SingleBlock, normal, rotations, shifted

DEFAULTS: dict[str, Any] = {
    "patch_size": 1, "in_channels": 64, "out_channels": None, "num_layers": 19, "num_single_layers": 38,
    "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096,
    "pooled_projection_dim": 768, "guidance_embeds": False, "axes_dims_rope": (16, 56, 56),
}  # fmt: skip


class FluxTransformer(nn.Module):
    """`config` is a diffusers `transformer/config.json`; what it leaves out is as in `DEFAULTS`."""

    streams = ("transformer_blocks", "single_transformer_blocks")

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = {name: config.get(name, default) for name, default in DEFAULTS.items()}
        a = self.config
        heads, size = a["num_attention_heads"], a["attention_head_dim"]
        width = heads * size
        self.x_embedder = nn.Linear(a["in_channels"], width)
        self.time_text_embed = Conditioning(a["pooled_projection_dim"], width, a["guidance_embeds"])
        self.context_embedder = nn.Linear(a["joint_attention_dim"], width)
        self.transformer_blocks = nn.ModuleList(
            JointBlock(width, heads, size, normed=True) for _ in range(a["num_layers"])
        )
        self.single_transformer_blocks = nn.ModuleList(
            SingleBlock(width, heads, size) for _ in range(a["num_single_layers"])
        )
        self.norm_out = Modulation(width, 2)
        self.proj_out = nn.Linear(width, a["patch_size"] ** 2 * (a["out_channels"] or a["in_channels"]))

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        context: Tensor,
        pooled: Tensor,
        guidance: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
        single_residuals: Sequence[Tensor] = (),
        mask: Tensor | None = None,
        cache: BlockCache | None = None,
    ) -> Tensor:
        """Velocity (noise - picture) of x (b, c, h, w), four channels of the configuration to one here, at
        time (b,), the noise's share in [0, 1]; context (b, m, k), pooled (b, k'), guidance (b,) for models
        that were distilled with it.

        residuals, single_residuals: of a ControlNet, each (b, n, d), spread over the blocks of either kind.
        mask (b or 1, 1, m + n, m + n): what attends to what, text first. cache: for one row alone, see
        `nn.block_cache`.
        """
        h, w = x.shape[-2] // 2, x.shape[-1] // 2
        m = context.shape[1]
        by = rotations(positions(m, h, w).to(x.device), self.config["axes_dims_rope"])
        x = self.x_embedder(pack(x))
        c = self.time_text_embed(1000 * time, pooled, None if guidance is None else 1000 * guidance)
        text = self.context_embedder(context)
        given = first = x
        for i, block in enumerate(self.transformer_blocks):
            x, text = block(x, text, c, by, mask)
            if residuals:
                x = x + residuals[i // math.ceil(len(self.transformer_blocks) / len(residuals))]
            if cache is not None and i == 0:
                first = x
                if (rest := cache.rest(first - given)) is not None:
                    return self._finish(first + rest, c, h, w)
        x = torch.cat([text, x], 1)
        for i, block in enumerate(self.single_transformer_blocks):
            x = block(x, c, by, mask)
            if single_residuals:
                at = i // math.ceil(len(self.single_transformer_blocks) / len(single_residuals))
                x = torch.cat([x[:, :m], x[:, m:] + single_residuals[at]], 1)
        x = x[:, m:]
        if cache is not None:
            cache.keep(first - given, x - first)
        return self._finish(x, c, h, w)

    def _finish(self, x: Tensor, c: Tensor, h: int, w: int) -> Tensor:
        scale, shift = self.norm_out(c)
        return unpack(self.proj_out(shifted(normal(x), shift, scale)), h, w)


def positions(m: int, h: int, w: int) -> Tensor:
    """(m + h w, 3): zeros for text, (0, row, column) for a grid of picture tokens."""
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    grid = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1)
    return torch.cat([grid.new_zeros(m, 3), grid])


def pack(x: Tensor) -> Tensor:
    """(b, c, 2 h, 2 w) -> (b, h w, 4 c): squares of four become a token, ordered channel, row, column."""
    x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (b, c, h, 2, w, 2)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(x: Tensor, h: int, w: int) -> Tensor:
    """What `pack` did, undone."""
    x = x.unflatten(2, (-1, 2, 2)).unflatten(1, (h, w))  # (b, h, w, c, 2, 2)
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
