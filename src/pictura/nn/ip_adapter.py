"""IP-Adapter (Ye et al. 2023): attention to a picture beside that to the text, by keys of its own.

The picture becomes tokens like those of a text in one of three ways: by one projection of its embedding; from
the encoder's patches, through a resampler ("plus", "plus-face") or each by itself ("full-face").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.nn.attention import Attention

__all__ = ["PROJECTIONS", "IPAdapter", "attending"]

_HEAD = 64  # the width of a head of attention in resamplers
Shapes = Mapping[str, tuple[int, ...]]


class Projection(nn.Module):
    """A picture's embedding (b, e) -> tokens (b, n, d) like those of a text."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        (width,) = shapes["image_proj.norm.weight"]
        rows, self.embedded = shapes["image_proj.proj.weight"]
        self.count = rows // width
        self.proj = nn.Linear(self.embedded, self.count * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).unflatten(-1, (self.count, -1)))


class Each(nn.Module):
    """A picture's patches (b, n, e) -> tokens (b, n, d)."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        (width,) = shapes["image_proj.proj.3.weight"]
        inner, self.embedded = shapes["image_proj.proj.0.weight"]
        layers = nn.Linear(self.embedded, inner), nn.GELU(), nn.Linear(inner, width), nn.LayerNorm(width)
        self.proj = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Reader(nn.Module):
    """Perceiver attention (Alayrac et al. 2022): latents (b, m, w) read patches (b, n, w) and themselves."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.heads, left = divmod(inner, _HEAD)
        if left or not inner:
            raise ValueError(f"{inner} channels cannot be dealt out to heads of {_HEAD}")
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        x, latents = self.norm1(x), self.norm2(latents)
        k, v = self.to_kv(torch.cat([x, latents], 1)).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(latents), k, v))
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """A picture's patches (b, n, e) -> as many tokens (b, m, d) as there are latents."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        _, count, width = shapes["image_proj.latents"]
        outer, _ = shapes["image_proj.proj_out.weight"]
        _, self.embedded = shapes["image_proj.proj_in.weight"]
        inner, _ = shapes["image_proj.layers.0.0.to_q.weight"]
        wide, _ = shapes["image_proj.layers.0.1.1.weight"]
        self.latents = nn.Parameter(torch.randn(1, count, width))
        self.proj_in = nn.Linear(self.embedded, width)
        self.proj_out = nn.Linear(width, outer)
        self.norm_out = nn.LayerNorm(outer)
        depth = len({name for name in shapes if name.endswith(".to_kv.weight")})
        self.layers = nn.ModuleList(
            nn.ModuleList([Reader(width, inner), _feed_forward(width, wide)]) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x, latents = self.proj_in(x), self.latents.expand(len(x), -1, -1)
        for layer in self.layers:
            latents = latents + layer[0](x, latents)  # type: ignore[index]
            latents = latents + layer[1](latents)  # type: ignore[index]
        return self.norm_out(self.proj_out(latents))


def _feed_forward(width: int, inner: int) -> nn.Sequential:
    up, down = nn.Linear(width, inner, bias=False), nn.Linear(inner, width, bias=False)
    return nn.Sequential(nn.LayerNorm(width), up, nn.GELU(), down)


# The tensor that gives a way away -> its network.
PROJECTIONS: Mapping[str, Callable[[Shapes], Projection | Each | Resampler]] = {
    "image_proj.proj.weight": Projection,
    "image_proj.proj.3.weight": Each,
    "image_proj.latents": Resampler,
}


class Keys(nn.Module):
    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(context, width, bias=False)
        self.to_v_ip = nn.Linear(context, width, bias=False)


class IPAdapter(nn.Module):
    """Parameters as in the files: `image_proj.*` and, for the n-th cross-attention, `ip_adapter.{2n + 1}.*`.

    shapes: of the file's tensors, from which all sizes are read; KeyError or ValueError where they are no
    IP-Adapter's. embedded: how wide what it reads is. patches: whether it reads all patches of a picture
    (the encoder's last layer but one), or its one embedding.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        make = next(make for mark, make in PROJECTIONS.items() if mark in shapes)
        self.image_proj = make(shapes)
        self.embedded = self.image_proj.embedded
        self.patches = not isinstance(self.image_proj, Projection)
        keys = sorted(
            (int(name.split(".")[1]), shape)
            for name, shape in shapes.items()
            if name.startswith("ip_adapter.") and name.endswith(".to_k_ip.weight")
        )
        self.ip_adapter = nn.ModuleDict({str(at): Keys(context, width) for at, (width, context) in keys})

    def keys(self, network: nn.Module) -> dict[str, Keys]:
        """For each cross-attention of a UNet its keys and values, by its name."""
        found = zip(self.ordered(network), self.ip_adapter.values(), strict=True)
        return dict(found)  # type: ignore[arg-type]

    def ordered(self, network: nn.Module) -> list[str]:
        """The names of a UNet's cross-attentions as files count them: the way down, the way up, the
        middle."""
        names = [module.name for module in network.modules() if isinstance(module, Attention)]
        crossing = [name for name in names if name.endswith("attn2")]
        order = ("down_blocks", "up_blocks", "mid_block")
        return sorted(crossing, key=lambda name: order.index(name.partition(".")[0]))  # stable


def attending(keys: Mapping[str, Keys], tokens: Tensor, weight: float) -> Callable[..., Tensor]:
    """A `Reading.attend` that adds `weight` times the attention to `tokens` (b, n, d) to that to the text."""

    def attend(attention: Attention, x: Tensor, context: Tensor | None, size: tuple[int, int]) -> Tensor:
        q, k, v = attention.project(x, context)
        mixed = attention.mix(q, k, v)
        if context is not None and attention.name in keys:
            own = keys[attention.name]
            keyed, valued = attention.split(own.to_k_ip(tokens)), attention.split(own.to_v_ip(tokens))
            mixed = mixed + weight * attention.mix(q, keyed, valued)
        return attention.finish(mixed)

    return attend
