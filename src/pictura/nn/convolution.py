"""Convolution whose answer for a picture does not depend on how many pictures it came with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """Like torch's, (b, c, h, w) -> (b, c', h', w').

    On CPUs torch sends a single small picture (up to 20 480 numbers) to another kernel than two or more, with
    other last bits; twice that picture goes where all others go.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 1 and x.numel() <= 20_480 and x.device.type == "cpu":
            return super().forward(torch.cat([x, x]))[:1]
        return super().forward(x)
