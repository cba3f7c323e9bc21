"""Attention from a map to itself and to a text (Rombach et al. 2022, appendix C), with diffusers' names.

Sizes: b pictures, n tokens, m tokens of the text, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Reading:
    """What the attention layers of one evaluation read, besides their own map.

    `context` (b, m, d) is the text. `attend`, if given, answers in place of every attention layer:
    `attend(attention, x (b, n, d), context or None for self-attention, (height, width) of the map)` -> (b, n,
    d). It finds the layer's full name in `attention.name`, and its parts in `attention.project`, `.mix` and
    `.finish`; extra keys, masks for regions and shared styles are written so.
    """

    context: Tensor
    attend: Callable[[Attention, Tensor, Tensor | None, tuple[int, int]], Tensor] | None = None

    def __call__(self, attention: Attention, x: Tensor, cross: bool, size: tuple[int, int]) -> Tensor:
        context = self.context if cross else None
        if self.attend is not None:
            return self.attend(attention, x, context, size)
        return attention(x, context)


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017); `name` is set by the network that holds it."""

    name = ""
    # `kernels.accelerate` puts another in its place.
    mixing: Callable[..., Tensor] = staticmethod(F.scaled_dot_product_attention)

    def __init__(
        self, width: int, context: int, heads: int, *, bias: bool = False, upcast: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.upcast = heads, upcast
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context, width, bias=bias)
        self.to_v = nn.Linear(context, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def split(self, x: Tensor) -> Tensor:
        """(b, n, d) -> (b, h, n, d / h)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b, h, n, d / h) of x, keys and values of the context, or of x itself."""
        read = x if context is None else context
        return self.split(self.to_q(x)), self.split(self.to_k(read)), self.split(self.to_v(read))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """softmax(q k / sqrt(d / h) + bias) v, (b, h, n, d / h)."""
        if self.upcast and q.dtype != torch.float32:
            return self.mixing(q.float(), k.float(), v.float(), bias).to(q.dtype)
        return self.mixing(q, k, v, bias)

    def finish(self, mixed: Tensor) -> Tensor:
        """(b, h, n, d / h) -> (b, n, d)"""
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.finish(self.mix(*self.project(x, context)))


class GatedUp(nn.Module):
    """x -> value * gelu(gate) (Shazeer 2020)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        # The second place is dropout's in the files' numbering.
        self.net = nn.ModuleList([GatedUp(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Pre-norm block: attention to itself, to the text, feed-forward. With `only_cross` both attentions read
    the text; `context` None leaves the second out."""

    def __init__(self, width: int, context: int, heads: int, *, only_cross: bool, upcast: bool) -> None:
        super().__init__()
        self.only_cross = only_cross
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, context if only_cross else width, heads, upcast=upcast)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, context, heads, upcast=upcast)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, read: Reading, size: tuple[int, int]) -> Tensor:
        x = x + read(self.attn1, self.norm1(x), self.only_cross, size)
        x = x + read(self.attn2, self.norm2(x), True, size)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A map as tokens through transformer blocks: x + out(blocks(in(norm(x))))."""

    def __init__(
        self,
        width: int,
        context: int,
        heads: int,
        depth: int,
        *,
        groups: int,
        linear: bool,
        only_cross: bool = False,
        upcast: bool = False,
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.proj_in = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, context, heads, only_cross=only_cross, upcast=upcast)
            for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, read: Reading) -> Tensor:
        size = (x.shape[2], x.shape[3])
        h = self.norm(x)
        h = self.proj_in(tokens(h)) if self.linear else tokens(self.proj_in(h))
        for block in self.transformer_blocks:
            h = block(h, read, size)
        return x + (to_map(self.proj_out(h), size) if self.linear else self.proj_out(to_map(h, size)))


def tokens(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h * w, c), a view where channels are last in memory."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(b, h * w, c) -> (b, c, h, w), channels last in memory."""
    return x.unflatten(1, size).permute(0, 3, 1, 2)
