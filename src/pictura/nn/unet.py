"""The UNet of Stable Diffusion 1, 2 and XL (Rombach et al. 2022; Podell et al. 2023), built from diffusers'
`unet/config.json` with exactly its parameter names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pictura.errors import PresetError, shown
from pictura.nn import config as configs
from pictura.nn.attention import Attention, Reading
from pictura.nn.deep_cache import DeepCache
from pictura.nn.resnet import ACTIVATIONS, norm_act
from pictura.nn.unet_blocks import DownBlock, MidBlock, UpBlock
from pictura.nn.unet_config import (
    POSSIBLE,
    WHAT,
    UNetConfig,
    first,
    level_settings,
    mid_settings,
    up_settings,
)


def sinusoid(t: Tensor, width: int, flip: bool, shift: float) -> Tensor:
    """(b,) -> (b, width) in float32: cos and sin (sin and cos unless `flip`) of t at frequencies 1 to about
    1/10000 (Vaswani et al. 2017)."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(-math.log(10000) * steps / (half - shift))
    parts = (angles.cos(), angles.sin()) if flip else (angles.sin(), angles.cos())
    return torch.nn.functional.pad(torch.cat(parts, -1), (0, width % 2))


class TimeEmbedding(nn.Module):
    """Linear, activation, linear; `condition` (b, k) is projected and added to the input."""

    def __init__(
        self, inner: int, outer: int, act: str = "silu", post: str | None = None, condition: int | None = None
    ) -> None:
        super().__init__()
        self.act, self.post = act, post
        self.linear_1 = nn.Linear(inner, outer)
        if condition is not None:
            self.cond_proj = nn.Linear(condition, inner, bias=False)
        self.linear_2 = nn.Linear(outer, outer)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = x if condition is None else x + self.cond_proj(condition)
        x = self.linear_2(ACTIVATIONS[self.act](self.linear_1(x)))
        return x if self.post is None else ACTIVATIONS[self.post](x)


class UNet(nn.Module):
    """What Stable Diffusion predicts from a noisy latent, its time and a text. PresetError for a
    configuration there is no code for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = c = configs.read(UNetConfig, config, WHAT, POSSIBLE)
        widths, levels = c.block_out_channels, len(c.block_out_channels)
        self.time_width = c.time_embedding_dim or 4 * widths[0]
        self.conv_in = nn.Conv2d(c.in_channels, widths[0], c.conv_in_kernel, padding=c.conv_in_kernel // 2)
        self.time_embedding = TimeEmbedding(
            widths[0], self.time_width, c.act_fn, c.timestep_post_act, c.time_cond_proj_dim
        )
        self._embeddings()
        vector = self.time_width * (2 if c.class_embeddings_concat else 1)
        settings = level_settings(c, vector)

        self.down_blocks = nn.ModuleList()
        for i, s in enumerate(settings):
            last = i == levels - 1
            self.down_blocks.append(DownBlock(s, widths[max(i - 1, 0)], widths[i], down=not last))
        if c.mid_block_type is not None:
            self.mid_block = MidBlock(mid_settings(c, settings[-1]), widths[-1], c.mid_block_scale_factor)
        self.up_blocks = nn.ModuleList()
        for i, s in enumerate(up_settings(c, settings)):
            at = levels - 1 - i
            before, skip = widths[min(at + 1, levels - 1)], widths[max(at - 1, 0)]
            self.up_blocks.append(UpBlock(s, before, skip, widths[at], up=at > 0))
        self.conv_norm_out = nn.GroupNorm(c.norm_num_groups, widths[0], c.norm_eps)
        self.conv_out = nn.Conv2d(
            widths[0], c.out_channels, c.conv_out_kernel, padding=c.conv_out_kernel // 2
        )
        for name, module in self.named_modules():
            if isinstance(module, Attention):
                module.name = name

    def _embeddings(self) -> None:
        c, wide = self.config, self.time_width
        if c.class_embed_type is None and c.num_class_embeds is not None:
            self.class_embedding: nn.Module = nn.Embedding(c.num_class_embeds, wide)
        elif c.class_embed_type == "timestep":
            self.class_embedding = TimeEmbedding(c.block_out_channels[0], wide, c.act_fn)
        elif c.class_embed_type == "identity":
            self.class_embedding = nn.Identity()
        elif c.class_embed_type == "projection":
            self.class_embedding = TimeEmbedding(self._projection("class_embed_type"), wide)
        elif c.class_embed_type == "simple_projection":
            self.class_embedding = nn.Linear(self._projection("class_embed_type"), wide)
        if c.addition_embed_type == "text_time":
            if not c.addition_time_embed_dim:
                raise PresetError(f"{WHAT}: addition_embed_type 'text_time' needs addition_time_embed_dim")
            self.add_embedding = TimeEmbedding(self._projection("addition_embed_type"), wide)
            if c.class_embeddings_concat:
                raise PresetError(f"{WHAT}: class_embeddings_concat cannot go with addition_embed_type")
        if c.encoder_hid_dim is not None:
            self.encoder_hid_proj = nn.Linear(c.encoder_hid_dim, first(c.cross_attention_dim))

    def _projection(self, key: str) -> int:
        width = self.config.projection_class_embeddings_input_dim
        if not width:
            value = shown(getattr(self.config, key))
            raise PresetError(f"{WHAT}: {key} {value} needs projection_class_embeddings_input_dim")
        return width

    def features(self, t: Tensor) -> Tensor:
        """Times (b,) -> their sinusoids (b, width of the first level)."""
        c = self.config
        return sinusoid(t, c.block_out_channels[0], c.flip_sin_to_cos, c.freq_shift).to(self.dtype)

    def sizes(self, pooled: Tensor, ids: Tensor) -> Tensor:
        """The vector that XL reads beside the text, `added`: the pooled text (b, p) followed by the sinusoids
        of `ids` (b, k): original height and width, crop from the top and the left, target height and width
        (Podell et al. 2023, section 2.2)."""
        c = self.config
        waves = sinusoid(ids.flatten(), c.addition_time_embed_dim or 2, c.flip_sin_to_cos, c.freq_shift)
        return torch.cat([pooled, waves.view(len(ids), -1).to(pooled.dtype)], -1)

    @property
    def dtype(self) -> torch.dtype:
        return self.conv_in.weight.dtype

    def embed(
        self, time: Tensor, added: Tensor | None, labels: Tensor | None, condition: Tensor | None
    ) -> Tensor:
        """The vector (b, t) that every residual block reads, its activation taken."""
        c = self.config
        vector = self.time_embedding(self.features(time), condition)
        if labels is not None:
            labels = self.features(labels) if c.class_embed_type == "timestep" else labels
            embedded = self.class_embedding(labels).to(vector.dtype)
            vector = torch.cat([vector, embedded], -1) if c.class_embeddings_concat else vector + embedded
        if added is not None:
            vector = vector + self.add_embedding(added)
        if c.time_embedding_act_fn is not None:
            vector = ACTIVATIONS[c.time_embedding_act_fn](vector)
        return ACTIVATIONS[c.act_fn](vector)

    def forward(
        self,
        sample: Tensor,
        time: Tensor,
        context: Tensor,
        added: Tensor | None = None,
        residuals: tuple[Sequence[Tensor], Tensor] | None = None,
        *,
        labels: Tensor | None = None,
        condition: Tensor | None = None,
        adapter: Sequence[Tensor] = (),
        attend: Callable[..., Tensor] | None = None,
        cache: DeepCache | None = None,
    ) -> Tensor:
        """Noisy latents (b, c, h, w), times (b,), text (b, m, d) -> the prediction (b, c', h, w).

        `added` (b, k): what `sizes` returns, for XL. `labels` (b,), or vectors (b, k): the class. `condition`
        (b, k): embedded guidance scale of distilled models (Luo et al. 2023). `residuals`: what a ControlNet
        adds to each skip and to the middle. `adapter`: what a T2I-Adapter adds to each level of the way down,
        and to the middle where one more is given. `attend`: see `attention.Reading`. `cache`: what the steps
        of this picture share, see `nn.deep_cache`.
        """
        c = self.config
        context = self.encoder_hid_proj(context) if hasattr(self, "encoder_hid_proj") else context
        read = Reading(context, attend)
        vector = self.embed(time, added, labels, condition)
        sample = sample.contiguous(memory_format=torch.channels_last)  # and so is every map that follows
        x = self.conv_in(2 * sample - 1 if c.center_input_sample else sample)
        deep = None if cache is None else cache.deep(x)
        if deep is not None:
            skip = x if residuals is None else x + residuals[0][0]
            x = self.up_blocks[-1].layer(-1, torch.cat([deep, skip], 1), vector, read)  # type: ignore[operator]
            return self.conv_out(norm_act(self.conv_norm_out, c.act_fn, x))
        skips, extra = [x], list(adapter)
        for block in self.down_blocks:
            x, more = block(x, vector, read, extra.pop(0) if extra else None)
            skips += more
        if residuals is not None:
            skips = [skip + add for skip, add in zip(skips, residuals[0], strict=True)]
        if hasattr(self, "mid_block"):
            x = self.mid_block(x, vector, read)
            x = x + extra[0] if extra and extra[0].shape == x.shape else x
        x = x if residuals is None else x + residuals[1]
        for i, block in enumerate(self.up_blocks):
            last = cache is not None and i == len(self.up_blocks) - 1
            x = block(x, vector, read, skips, cache.keep if last else None)  # type: ignore[union-attr]
        return self.conv_out(norm_act(self.conv_norm_out, c.act_fn, x))
