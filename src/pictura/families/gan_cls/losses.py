"""The losses of GAN-CLS on logits, where D = sigmoid(logit), so that log D = -softplus(-logit)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def matching_aware(real: Tensor, wrong: Tensor, fake: Tensor, mismatched: Tensor) -> Tensor:
    """What the discriminator minimises, Reed et al. 2016, algorithm 1, line 8, negated:
    -[log s_r + (log(1 - s_w) + log(1 - s_f)) / 2], each the mean over (b,) logits of
    real picture and right caption, real picture and wrong caption, made picture and right caption.
    `mismatched` (b,) is 0 where the "wrong" caption happens to be right; such rows are left out of s_w."""
    wrongs = (F.softplus(wrong) * mismatched).sum() / mismatched.sum().clamp_min(1)
    return F.softplus(-real).mean() + (wrongs + F.softplus(fake).mean()) / 2


def fooling(fake: Tensor) -> Tensor:
    """What the generator minimises, line 10 of algorithm 1, negated: -log s_f. The same on captions mixed
    half and half is GAN-INT, equation 5."""
    return F.softplus(-fake).mean()


def steepness(real: Tensor, shaken: Tensor, sigma: float) -> Tensor:
    """|grad_x D|^2 at real pictures (R1, Mescheder et al. 2018) by one finite difference: `shaken` are the
    logits of the same pictures with N(0, sigma^2) noise (as in Lin et al. 2025, "APT")."""
    return ((shaken - real) / sigma).square().mean()
