"""The autoencoder between pictures and latents (Rombach et al. 2022, section 3.1), built from diffusers'
`vae/config.json` with exactly its parameter names. Scaling and shifting latents is the family's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pictura.errors import PresetError
from pictura.nn import bands
from pictura.nn import config as configs
from pictura.nn.attention import Attention, to_map, tokens
from pictura.nn.resnet import ACTIVATIONS, Downsample, ResnetBlock, Upsample, norm_act

WHAT = "vae"
EPS = 1e-6
LARGE = 16 << 20  # bytes of a map from which on it is computed some rows at a time
POSSIBLE: dict[str, tuple[Any, ...]] = {"act_fn": tuple(ACTIVATIONS)}


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """diffusers' keys and defaults."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    act_fn: str = "silu"
    latent_channels: int = 4
    norm_num_groups: int = 32
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True


class MapAttention(Attention):
    """One head over all places of a map: x + attention(norm(x))."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__(width, width, 1, bias=True)
        self.group_norm = nn.GroupNorm(groups, width, EPS)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = super().forward(tokens(self.group_norm(x)))
        return x + to_map(h, (x.shape[2], x.shape[3]))


class Middle(nn.Module):
    def __init__(self, c: VAEConfig, width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnet(c, width, width) for _ in range(2))
        if c.mid_block_add_attention:
            self.attentions = nn.ModuleList([MapAttention(width, c.norm_num_groups)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.resnets[0](x)
        return self.resnets[1](self.attentions[0](x) if hasattr(self, "attentions") else x)


class Level(nn.Module):
    """Residual blocks, then a layer that changes the size."""

    def __init__(self, c: VAEConfig, inner: int, outer: int, layers: int) -> None:
        super().__init__()
        widths = [inner] + [outer] * layers
        self.resnets = nn.ModuleList(resnet(c, a, b) for a, b in pairwise(widths))

    def steps(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Its layers as functions. Whoever calls them one after the other, and drops what went in, holds one
        map at a time; a `forward` of this level would be called with a map that its caller keeps."""
        for block in self.resnets:
            yield partial(step, block, bands.resnet, 1)
        for down in getattr(self, "downsamplers", ()):
            yield partial(step, down, bands.downsample, 1)
        for up in getattr(self, "upsamplers", ()):
            yield partial(step, up, bands.upsample, 4)


def step(layer: Any, banded: Callable[[Any, Tensor], Tensor], growth: int, x: Tensor) -> Tensor:
    return banded(layer, x) if in_bands(x, growth) else layer(x)


def in_bands(x: Tensor, growth: int = 1) -> bool:
    """Whether x, `growth` times as large, is computed some rows at a time."""
    large = growth * x.numel() * x.element_size() > LARGE
    return large and x.device.type == "cpu" and not torch.is_grad_enabled()


def last(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The last activation is always SiLU, whatever the configuration says."""
    if in_bands(x):
        return bands.convolution(conv, x, bands.norm(norm, "silu", x))
    return conv(norm_act(norm, "silu", x))


class Encoder(nn.Module):
    def __init__(self, c: VAEConfig) -> None:
        super().__init__()
        self.act, widths = c.act_fn, c.block_out_channels
        self.conv_in = nn.Conv2d(c.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(c, widths[max(i - 1, 0)], width, c.layers_per_block)
            if i < len(widths) - 1:
                level.downsamplers = nn.ModuleList([Downsample(width, 0)])
            self.down_blocks.append(level)
        self.mid_block = Middle(c, widths[-1])
        self.conv_norm_out = nn.GroupNorm(c.norm_num_groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * c.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down_blocks:
            for layer in level.steps():  # type: ignore[operator]
                x = layer(x)
        return last(self.conv_norm_out, self.conv_out, self.mid_block(x))


class Decoder(nn.Module):
    def __init__(self, c: VAEConfig) -> None:
        super().__init__()
        widths = c.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(c.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Middle(c, widths[0])
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            level = Level(c, widths[max(i - 1, 0)], width, c.layers_per_block + 1)
            if i < len(widths) - 1:
                level.upsamplers = nn.ModuleList([Upsample(width)])
            self.up_blocks.append(level)
        self.conv_norm_out = nn.GroupNorm(c.norm_num_groups, widths[-1], EPS)
        self.conv_out = nn.Conv2d(widths[-1], c.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            for layer in level.steps():  # type: ignore[operator]
                x = layer(x)
        return last(self.conv_norm_out, self.conv_out, x)


class AutoencoderKL(nn.Module):
    """Pictures (b, 3, h, w) in [-1, 1] to latents (b, z, h / f, w / f) and back. PresetError for a
    configuration there is no code for."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = c = configs.read(VAEConfig, config, WHAT, POSSIBLE)
        check(c)
        z = c.latent_channels
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.quant_conv = nn.Conv2d(2 * z, 2 * z, 1) if c.use_quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(z, z, 1) if c.use_post_quant_conv else nn.Identity()

    @property
    def factor(self) -> int:
        """How many pixels a side of a latent stands for."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the latent, the latter in [-30, 20]."""
        mean, logvar = self.quant_conv(one_by_one(self.encoder, x)).chunk(2, 1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z: Tensor) -> Tensor:
        return one_by_one(self.decoder, self.post_quant_conv(z))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x)[0])


def one_by_one(network: nn.Module, x: Tensor) -> Tensor:
    """On a CPU a batch gains nothing and takes as many times the memory."""
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return network(x)
    x = x.contiguous(memory_format=torch.channels_last)  # and so is every map that follows
    return torch.cat([network(row) for row in x.split(1)])


def resnet(c: VAEConfig, inner: int, outer: int) -> ResnetBlock:
    return ResnetBlock(inner, outer, time=None, groups=c.norm_num_groups, eps=EPS, act=c.act_fn)


def check(c: VAEConfig) -> None:
    levels = len(c.block_out_channels)
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        kinds = configs.per_level(WHAT, key, getattr(c, key), levels)
        if set(kinds) - {kind}:
            other = next(k for k in kinds if k != kind)
            raise PresetError(f"{WHAT}: {key} has {other!r}; possible: {kind!r}")
    for width in c.block_out_channels:
        configs.divisible(WHAT, width, c.norm_num_groups, "channels cannot be dealt out to groups of norms:")
