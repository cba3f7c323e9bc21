"""Residual blocks of convolutional networks, and the layers that halve and double their maps.

Modules and parameters are named as diffusers names them. Maps are (b, c, h, w).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "swish": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "relu": F.relu,
}


def norm_act(norm: nn.Module, act: str, x: Tensor) -> Tensor:
    """act(norm(x)), without a second map where no gradient is wanted."""
    h = norm(x)
    if ACTIVATIONS[act] is F.silu and not torch.is_grad_enabled():
        return F.silu(h, inplace=True)
    return ACTIVATIONS[act](h)


class ResnetBlock(nn.Module):
    """x + conv(act(norm(conv(act(norm(x))) + time))) (He et al. 2016; Ho et al. 2020).

    With `scale_shift` the time vector scales and shifts the second norm instead (Dhariwal and Nichol 2021).
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        *,
        time: int | None,
        groups: int,
        eps: float,
        act: str = "silu",
        scale_shift: bool = False,
        dropout: float = 0.0,
        divisor: float = 1.0,
    ) -> None:
        super().__init__()
        self.act, self.scale_shift, self.dropout, self.divisor = act, scale_shift, dropout, divisor
        self.norm1 = nn.GroupNorm(groups, inner, eps)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        if time is not None:
            self.time_emb_proj = nn.Linear(time, 2 * outer if scale_shift else outer)
        self.norm2 = nn.GroupNorm(groups, outer, eps)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        if inner != outer:
            self.conv_shortcut = nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """`time` (b, t) with its activation already taken."""
        h = self.conv1(norm_act(self.norm1, self.act, x))
        if time is not None:
            time = self.time_emb_proj(time)[:, :, None, None]
        if time is None or not self.scale_shift:
            h = norm_act(self.norm2, self.act, h if time is None else h + time)
        else:
            scale, shift = time.chunk(2, 1)
            h = ACTIVATIONS[self.act](self.norm2(h) * (1 + scale) + shift)
        h = self.conv2(F.dropout(h, self.dropout, self.training))
        x = self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x
        return (x + h) / self.divisor if self.divisor != 1 else x + h


class Downsample(nn.Module):
    """Half the sides by a 3x3 convolution of stride 2. `padding` 0: a row and a column of zeros at the
    bottom and the right only, as autoencoders have it."""

    def __init__(self, width: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.conv.padding != (0, 0) else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Each value repeated to `size`, by default twice the sides, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        return self.conv(F.interpolate(x, size or (2 * x.shape[2], 2 * x.shape[3])))
