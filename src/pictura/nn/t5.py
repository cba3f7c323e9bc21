"""The encoder of T5 (Raffel et al. 2020): version 1.1, with which SD3 and FLUX read prompts, and the first.

Parameters have the names that transformers writes. Against the usual transformer: norms that only scale, no
biases, attention without 1/sqrt(d), and positions as a bias on the scores that depends on the distance alone,
learned once and used in every block.

Sizes: b texts, n tokens, d width, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.nn.clip import activation

T5_CONFIG: dict[str, Any] = {
    "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8,
    "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6, "feed_forward_proj": "relu",
}  # fmt: skip


_TABLE = "layer.0.SelfAttention.relative_attention_bias"


class ScaleNorm(nn.Module):
    """x / rms(x) * weight, computed in float32; the answer has the weight's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (x * scale).to(self.weight.dtype)


class T5Attention(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, first: bool) -> None:
        super().__init__()
        width, self.heads = config["d_model"], config["num_heads"]
        inner = self.heads * config["d_kv"]
        self.q = nn.Linear(width, inner, bias=False)
        self.k = nn.Linear(width, inner, bias=False)
        self.v = nn.Linear(width, inner, bias=False)
        self.o = nn.Linear(inner, width, bias=False)
        if first:
            self.relative_attention_bias = nn.Embedding(config["relative_attention_num_buckets"], self.heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.q, self.k, self.v)
        )  # (b, h, n, d_kv)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.o(y.transpose(1, 2).flatten(-2))


class SelfAttentionLayer(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, first: bool) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(config, first=first)
        self.layer_norm = ScaleNorm(config["d_model"], config["layer_norm_epsilon"])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class FeedForward(nn.Module):
    """act(wi x), or gated act(wi_0 x) * wi_1 x (Shazeer 2020), then wo.

    What `wo` gives can be larger than float16 holds: with float16 weights it is computed in float32.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, hidden = config["d_model"], config["d_ff"]
        gated, _, act = config["feed_forward_proj"].rpartition("-")
        self.act = activation("gelu_new" if gated and act == "gelu" else act)
        if gated:
            self.wi_0 = nn.Linear(width, hidden, bias=False)
            self.wi_1 = nn.Linear(width, hidden, bias=False)
        else:
            self.wi = nn.Linear(width, hidden, bias=False)
        self.wo = nn.Linear(hidden, width, bias=False)
        self.gated = bool(gated)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.wi_0(x)) * self.wi_1(x) if self.gated else self.act(self.wi(x))
        if y.dtype == torch.float16:
            return F.linear(y.float(), self.wo.weight.float())
        return self.wo(y)


class FeedForwardLayer(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.DenseReluDense = FeedForward(config)
        self.layer_norm = ScaleNorm(config["d_model"], config["layer_norm_epsilon"])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class T5Block(nn.Module):
    def __init__(self, config: Mapping[str, Any], *, first: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([SelfAttentionLayer(config, first=first), FeedForwardLayer(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return self.layer[1](self.layer[0](x, bias))


class T5Stack(nn.Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.block = nn.ModuleList(T5Block(config, first=i == 0) for i in range(config["num_layers"]))
        self.final_layer_norm = ScaleNorm(config["d_model"], config["layer_norm_epsilon"])


class T5Encoder(nn.Module):
    """`config` as transformers writes it."""

    streams = ("encoder.block",)

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        c = {**T5_CONFIG, **config}
        self.distance: int = c["relative_attention_max_distance"]
        self.shared = nn.Embedding(c["vocab_size"], c["d_model"])
        self.encoder = T5Stack(c)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """ids (b, n) -> (b, n, d). `mask` (b, n) is 0 at tokens that no other may look at; SD3 and FLUX give
        none, so that padding is looked at too."""
        bias = self.bias(ids.shape[1])
        if mask is not None:
            hidden = (mask == 0)[:, None, None, :]
            bias = bias.masked_fill(hidden, torch.finfo(bias.dtype).min)
        x = self.shared(ids)
        for block in self.encoder.block:
            x = block(x, bias)
        return self.encoder.final_layer_norm(x)

    def bias(self, n: int) -> Tensor:
        """(1, h, n, n): what each query adds to the score of each key, learned by bucket of distance."""
        table: nn.Embedding = self.encoder.block[0].get_submodule(_TABLE)  # type: ignore[assignment]
        at = torch.arange(n, device=table.weight.device)
        away = at[None, :] - at[:, None]  # key minus query
        return table(buckets(away, table.num_embeddings, self.distance)).permute(2, 0, 1)[None]


def buckets(away: Tensor, count: int, furthest: int) -> Tensor:
    """Distances to 0 .. count - 1: half of them for keys before the query, half for those after it. Of each
    half, one half holds single distances; the others grow geometrically up to `furthest`, and the last holds
    all beyond."""
    side = count // 2
    exact = side // 2
    size = away.abs()
    growth = torch.log(size.clamp(min=1).float() / exact) / math.log(furthest / exact)
    large = (exact + (growth * (side - exact)).long()).clamp(max=side - 1)
    return torch.where(away > 0, side, 0) + torch.where(size < exact, size, large)
