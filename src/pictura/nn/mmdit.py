"""Parts of multimodal diffusion transformers (Esser et al. 2024): a picture and a text stream with weights of
their own, joined in attention. Parameters are named as in diffusers' files.

Sizes: b pictures, n picture tokens, m text tokens, d width, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoid(t: Tensor, width: int = 256) -> Tensor:
    """(b,) -> (b, width) float32: cos and sin of t at geometric frequencies from 1 down to 1/10000."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000) / half))
    angles = t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def rotations(positions: Tensor, widths: Sequence[int], theta: float = 10_000.0) -> Tensor:
    """Rotary embedding (Su et al. 2021) over several axes: positions (n, axes) -> unit complex numbers
    (n, sum(widths) / 2), axis by axis; angles in float64."""
    angles = [
        axis.double()[:, None] * theta ** -(torch.arange(0, width, 2, device=axis.device).double() / width)
        for axis, width in zip(positions.unbind(-1), widths, strict=True)
    ]
    joined = torch.cat(angles, -1)
    return torch.polar(torch.ones_like(joined), joined).to(torch.complex64)


def rotate(x: Tensor, by: Tensor) -> Tensor:
    """x (b, n, h, k) with its channels taken in pairs (2i, 2i + 1), turned by `by` (n, k / 2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * by[:, None]).flatten(-2).to(x.dtype)


def shifted(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (b, n, d) times 1 + scale (b, d) plus shift (b, d)."""
    return torch.addcmul(shift[:, None], x, 1 + scale[:, None])


def normal(x: Tensor) -> Tensor:
    """Layer normalisation without weights."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Embedder(nn.Module):
    """A vector to a vector: linear, SiLU, linear."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(given, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Conditioning(nn.Module):
    """What all blocks are told: the time, the pooled text and, in distilled models, the guidance scale."""

    def __init__(self, pooled: int, width: int, guided: bool = False) -> None:
        super().__init__()
        self.timestep_embedder = Embedder(256, width)
        if guided:
            self.guidance_embedder = Embedder(256, width)
        self.text_embedder = Embedder(pooled, width)

    def forward(self, time: Tensor, pooled: Tensor, guidance: Tensor | None = None) -> Tensor:
        """(b,), (b, k), (b,) -> (b, d) after the SiLU with which every modulation begins."""
        c = self.timestep_embedder(sinusoid(time).to(pooled.dtype))
        if guidance is not None:
            c = c + self.guidance_embedder(sinusoid(guidance).to(pooled.dtype))
        return F.silu(c + self.text_embedder(pooled))


class Modulation(nn.Module):
    """Vectors that shift, scale and gate a block (Peebles and Xie 2023)."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = nn.Linear(width, count * width)

    def forward(self, c: Tensor) -> tuple[Tensor, ...]:
        """(b, d) -> `count` of (b, d)."""
        return self.linear(c).chunk(self.count, -1)


class Up(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, width: int, ratio: int = 4) -> None:
        super().__init__()
        # The second is where diffusers has a dropout: it counts in the names.
        self.net = nn.Sequential(Up(width, ratio * width), nn.Identity(), nn.Linear(ratio * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class Attention(nn.Module):
    """Attention of picture tokens, and of text tokens where `text` says that they join, in one softmax.

    `text`: "none", "joined", or "read" where nothing comes out for them (the last block of SD3). `out` False
    leaves the last linear to the caller.
    """

    # `kernels.accelerate` puts another in its place.
    mixing: Callable[..., Tensor] = staticmethod(F.scaled_dot_product_attention)
    norm_q: nn.Module
    norm_k: nn.Module
    norm_added_q: nn.Module
    norm_added_k: nn.Module

    def __init__(
        self, width: int, heads: int, size: int, *, normed: bool, text: str = "none", out: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.text, inner = heads, text, heads * size
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, inner) for _ in range(3))
        if out:
            self.to_out = nn.ModuleList([nn.Linear(inner, width)])
        if text != "none":
            self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, inner) for _ in range(3))
        if text == "joined":
            self.to_add_out = nn.Linear(inner, width)
        for name in ("norm_q", "norm_k", *(("norm_added_q", "norm_added_k") if text != "none" else ())):
            setattr(self, name, nn.RMSNorm(size, eps=1e-6) if normed else nn.Identity())

    def mix(
        self, x: Tensor, text: Tensor | None = None, by: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x (b, n, d), text (b, m, d) -> (b, m + n, d), text first, before the last linear.

        by (m + n, k): rotations of queries and keys. mask (b or 1, 1, m + n, m + n), bool or added to scores.
        """
        q, k, v = (self._heads(linear(x)) for linear in (self.to_q, self.to_k, self.to_v))
        q, k = self.norm_q(q), self.norm_k(k)
        if text is not None:
            projections = (self.add_q_proj, self.add_k_proj, self.add_v_proj)
            text_q, text_k, text_v = (self._heads(linear(text)) for linear in projections)
            q = torch.cat([self.norm_added_q(text_q), q], 1)
            k = torch.cat([self.norm_added_k(text_k), k], 1)
            v = torch.cat([text_v, v], 1)
        if by is not None:
            q, k = rotate(q, by), rotate(k, by)
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        mixed = self.mixing(q, k, v, mask)
        return mixed.transpose(1, 2).flatten(2)

    def forward(
        self, x: Tensor, text: Tensor | None = None, by: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """As `mix`, then each stream through its own last linear."""
        mixed = self.mix(x, text, by, mask)
        if text is None:
            return self.to_out[0](mixed), None
        m = text.shape[1]
        told = self.to_add_out(mixed[:, :m]) if self.text == "joined" else None
        return self.to_out[0](mixed[:, m:]), told

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))  # (b, n, h, k)


class JointBlock(nn.Module):
    """One block of both streams. `dual`: the picture also attends to itself alone (SD 3.5 medium). `last`:
    the text is read and goes no further."""

    def __init__(
        self, width: int, heads: int, size: int, *, normed: bool, dual: bool = False, last: bool = False
    ) -> None:
        super().__init__()
        self.dual, self.last = dual, last
        self.norm1 = Modulation(width, 9 if dual else 6)
        self.norm1_context = Modulation(width, 2 if last else 6)
        self.attn = Attention(width, heads, size, normed=normed, text="read" if last else "joined")
        if dual:
            self.attn2 = Attention(width, heads, size, normed=normed)
        self.ff = FeedForward(width)
        if not last:
            self.ff_context = FeedForward(width)

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        c: Tensor,
        by: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x (b, n, d), text (b, m, d), c (b, d) -> both streams, of the same shapes."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp, *second = self.norm1(c)
        if self.last:
            text_scale, text_shift = self.norm1_context(c)  # in this order only here
        else:
            text_shift, text_scale, text_gate, *text_mlp = self.norm1_context(c)
        y = normal(x)
        mixed, told = self.attn(
            shifted(y, shift, scale), shifted(normal(text), text_shift, text_scale), by, mask
        )
        x = torch.addcmul(x, gate[:, None], mixed)
        if self.dual:
            shift2, scale2, gate2 = second
            x = torch.addcmul(x, gate2[:, None], self.attn2(shifted(y, shift2, scale2))[0])
        x = torch.addcmul(x, gate_mlp[:, None], self.ff(shifted(normal(x), shift_mlp, scale_mlp)))
        if told is not None:
            shift_mlp, scale_mlp, gate_mlp = text_mlp
            text = torch.addcmul(text, text_gate[:, None], told)
            y = self.ff_context(shifted(normal(text), shift_mlp, scale_mlp))
            text = torch.addcmul(text, gate_mlp[:, None], y)
        return x, text


class SingleBlock(nn.Module):
    """Both streams as one, attention and feed-forward side by side (FLUX)."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.norm = Modulation(width, 3)
        self.attn = Attention(width, heads, size, normed=True, out=False)
        self.proj_mlp = nn.Linear(width, 4 * width)
        self.proj_out = nn.Linear(5 * width, width)

    def forward(self, x: Tensor, c: Tensor, by: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (b, m + n, d), text first."""
        shift, scale, gate = self.norm(c)
        y = shifted(normal(x), shift, scale)
        up = F.gelu(self.proj_mlp(y), approximate="tanh")
        both = torch.cat([self.attn.mix(y, None, by, mask), up], -1)
        return torch.addcmul(x, gate[:, None], self.proj_out(both))
