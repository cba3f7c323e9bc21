"""Transformer parts: cast-on-use linear, gated feed-forward, attention with normalised queries and keys.

Sizes: b pictures, n tokens, d width, h heads.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A matrix product of 1 to 3 rows is answered by another CPU kernel than one of 4 or more, with other last
# bits. Vectors of one row a picture are therefore padded, so that a picture does not depend on its batch.
MIN_ROWS = 4


class Linear(nn.Linear):
    """Weights stay float32; the product is in the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else cast(self.bias, x.dtype)
        return F.linear(x, cast(self.weight, x.dtype), bias)


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x.to(dtype)`, without a call where there is nothing to do.

    Each call gives the interpreter's lock away and takes it back, which costs more than small products where
    several threads work on rows of their own (`nn.rows`).
    """
    return x if x.dtype == dtype else x.to(dtype)


def pad_rows(x: Tensor) -> Tensor:
    """(b, ...) -> (max(b, 4), ...), zeros below."""
    if x.shape[0] >= MIN_ROWS:
        return x
    return F.pad(x, (0, 0) * (x.ndim - 1) + (0, MIN_ROWS - x.shape[0]))


def rms_norm(x: Tensor, weight: Tensor | None = None) -> Tensor:
    """x / rms(x), computed in float32 (Zhang and Sennrich 2019)."""
    y = F.rms_norm(cast(x, torch.float32), (x.shape[-1],), eps=1e-6)
    return cast(y if weight is None else y * weight, x.dtype)


def time_features(t: Tensor, half: int = 64, period: float = 1000.0) -> Tensor:
    """(b,) in [0, 1] -> (b, 2 * half): cos and sin of 1000 t at geometric frequencies."""
    frequencies = torch.exp(torch.arange(half, device=t.device) * (-math.log(period) / half))
    angles = 1000 * t[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class SwiGLU(nn.Module):
    """Shazeer 2020, eq. 6."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(width, 2 * hidden, bias=False)
        self.down = Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class Attention(nn.Module):
    """Self-attention with RMS-normalised queries and keys (Henry et al. 2020). `bias` (b, 1, 1, n), or
    anything that broadcasts to it, is 0 or a large negative number. Softmax written out: on CPUs it trains
    faster than the fused kernel."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.out = Linear(width, width, bias=False)
        self.q_norm = nn.Parameter(torch.ones(width // heads))
        self.k_norm = nn.Parameter(torch.ones(width // heads))

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, n, d = x.shape
        # Contiguous: a batch of one would otherwise reach another matrix kernel, with other last bits.
        qkv = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).contiguous()
        q, k, v = qkv.unbind()  # (b, h, n, d/h)
        q, k = rms_norm(q, self.q_norm), rms_norm(k, self.k_norm)
        scores = q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5
        weights = cast(torch.softmax(cast(scores, torch.float32) + bias, -1), x.dtype)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, d))


class Block(nn.Module):
    """Pre-norm transformer block without modulation."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.Parameter(torch.ones(width))
        self.norm2 = nn.Parameter(torch.ones(width))
        self.attention = Attention(width, heads)
        self.mlp = SwiGLU(width, hidden)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = x + self.attention(rms_norm(x, self.norm1), bias)
        return x + self.mlp(rms_norm(x, self.norm2))


class ModulatedBlock(nn.Module):
    """Pre-norm block whose norms are shifted and scaled, and whose branches are gated, per token
    (Peebles and Xie 2023); the six vectors come from one linear shared by all blocks plus this block's own
    table (Chen et al. 2023). Gates start at 0.3, so that all blocks learn from the first step."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = SwiGLU(width, hidden)
        table = torch.zeros(6, width)
        table[2] = table[5] = 0.3
        self.table = nn.Parameter(table)

    def forward(self, x: Tensor, bias: Tensor, modulation: Tensor) -> Tensor:
        """`modulation` (b, n, 6, d), or (b, 1, 6, d) for the same on all tokens."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + cast(self.table, x.dtype)).unbind(2)
        x = x + gate1 * self.attention(rms_norm(x) * (1 + scale1) + shift1, bias)
        return x + gate2 * self.mlp(rms_norm(x) * (1 + scale2) + shift2)
