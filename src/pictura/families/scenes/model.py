"""The networks of `scenes`: a caption encoder and a flow transformer on patches of the picture itself.

After "Back to Basics: Let Denoising Generative Models Denoise" (Li and He 2025): no autoencoder, 16 px
patches, the network predicts the clean picture. Ours adds a fixed per-patch PCA and an output that starts as
the best linear denoiser. Sizes: b pictures, n = 64 patches, m = 8 text tokens, d width, k coefficients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.nn.transformer import Block, Linear, ModulatedBlock, pad_rows, rms_norm, time_features


def mask_bias(mask: Tensor) -> Tensor:
    """(b, n) bool, True = attend -> (b, 1, 1, n) to add to attention scores."""
    return torch.where(mask, 0.0, -1e9)[:, None, None, :]


class TextEncoder(nn.Module):
    """Token ids (b, m), 0 = padding -> (b, m, d). Positions are as loud as words from the first step: an
    encoder that starts with faint ones learns bags of words and never "left of"."""

    def __init__(self, words: int, length: int, width: int, heads: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.words = nn.Parameter(0.5 * torch.randn(words, width))
        self.positions = nn.Parameter(0.5 * torch.randn(length, width))
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.Parameter(torch.ones(width))

    def forward(self, ids: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        bias = mask_bias(ids != 0)
        x = (F.embedding(ids, self.words) + self.positions).to(dtype)
        for block in self.blocks:
            x = block(x, bias)
        return rms_norm(x, self.norm)


class CaptionAttention(nn.Module):
    """What the caption says about each patch: n learned queries, one a place in the picture, read the words.

    The softmax is over the words alone, so a word speaks to every patch from the first step; in a joint
    sequence eight words among sixty-four patches were not heard in 80 000 samples.
    """

    def __init__(self, count: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Parameter(torch.randn(count, width))
        self.keys = Linear(width, width, bias=False)
        self.values = Linear(width, width, bias=False)
        self.out = Linear(width, width, bias=False)
        nn.init.orthogonal_(self.values.weight)
        nn.init.orthogonal_(self.out.weight)

    def forward(self, text: Tensor, mask: Tensor) -> Tensor:
        """text (b, m, d), mask (b, m) bool -> (b, n, d)."""
        h = self.heads
        q = rms_norm(self.queries.unflatten(-1, (h, -1))).transpose(0, 1).to(text.dtype)
        q = q.expand(len(text), -1, -1, -1).contiguous()  # (b, h, n, d/h); one layout at every b: same bits
        k = rms_norm(self.keys(text).unflatten(-1, (h, -1))).transpose(1, 2).contiguous()  # (b, h, m, d/h)
        v = self.values(text).unflatten(-1, (h, -1)).transpose(1, 2).contiguous()
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5  # (b, h, n, m)
        weights = torch.softmax(scores.float() + mask_bias(mask), -1).to(text.dtype)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Denoiser(nn.Module):
    """What a picture looks like without its noise, given its caption.

    Works on PCA coefficients: `encode` and `decode` go between pixels (b, 3, 128, 128) in [-1, 1] and
    (b, n, k). With z = t x + (1 - t) noise, the output is the mean of a Gaussian posterior whose prior mean
    sqrt(L) m and variance L e^r the network predicts, plus a correction y in units of the linear denoiser's
    error; m = r = y = 0 is the Wiener filter. A flat patch is then exact with r small: no noise has to be
    cancelled through the trunk.
    """

    mean: Tensor
    basis: Tensor
    variance: Tensor

    def __init__(
        self, side: int, patch: int, coefficients: int, width: int, heads: int, hidden: int, depth: int
    ) -> None:
        super().__init__()
        self.side, self.patch, self.depth = side, patch, depth
        values, count = 3 * patch * patch, (side // patch) ** 2
        self.register_buffer("mean", torch.zeros(values))
        self.register_buffer("basis", torch.eye(values)[:, :coefficients].contiguous())
        self.register_buffer("variance", torch.ones(coefficients))
        self.embed = Linear(coefficients, width)
        self.positions = nn.Parameter(0.5 * torch.randn(count, width))
        self.caption = CaptionAttention(count, width, heads)
        self.time1 = Linear(128, width)
        self.time2 = Linear(width, width)
        self.modulation = Linear(width, 6 * width)
        self.blocks = nn.ModuleList(ModulatedBlock(width, heads, hidden) for _ in range(depth))
        self.final = Linear(width, 2 * width)
        self.head = Linear(width, 3 * coefficients)
        for linear in (self.modulation, self.final, self.head):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def encode(self, x: Tensor) -> Tensor:
        """(b, 3, h, w) -> (b, n, 3 p p), patches in reading order, before the mean is taken away."""
        p, s = self.patch, self.side // self.patch
        return x.unflatten(3, (s, p)).unflatten(2, (s, p)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def decode(self, coefficients: Tensor) -> Tensor:
        """(b, n, k) -> (b, 3, h, w)."""
        p, s = self.patch, self.side // self.patch
        x = coefficients @ self.basis.T.to(coefficients.dtype) + self.mean
        return (
            x.unflatten(1, (s, s)).unflatten(3, (3, p, p)).permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        )

    def forward(
        self, z: Tensor, t: Tensor, text: Tensor, mask: Tensor, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """z (b, n, k) noisy coefficients (t mean already taken away), t (b,) in [0, 1), text (b, m, d),
        mask (b, m) bool -> (clean coefficients (b, n, k), tokens after the middle block (b, n, d))."""
        b = len(z)
        t = t[:, None, None].float()
        noise = 1 - t
        total = t * t * self.variance + noise * noise  # (b, 1, k)
        x = self.embed((z / total.sqrt()).to(dtype)) + self.positions.to(dtype)
        c = self.time2(F.silu(self.time1(pad_rows(time_features(t[:, 0, 0])))))
        told = self.caption(text, mask)  # (b, n, d)
        x = x + told
        c = F.silu(c[:b, None] + told.float()).to(dtype)
        modulation = self.modulation(c).unflatten(-1, (6, -1))
        shift, scale = self.final(c).chunk(2, -1)
        bias = x.new_zeros(1)
        middle = x
        for i, block in enumerate(self.blocks):
            x = block(x, bias, modulation)
            if i + 1 == self.depth // 2:
                middle = x
        x = rms_norm(x) * (1 + scale) + shift
        m, r, y = self.head(x).float().chunk(3, -1)
        prior = self.variance * torch.exp(r.clamp(-12, 2))
        gain = t * prior / (t * t * prior + noise * noise)
        clean = (
            (1 - t * gain) * self.variance.sqrt() * m + gain * z + (self.variance / total).sqrt() * noise * y
        )
        return clean, middle


class Labels(nn.Module):
    """Training only. From the middle of the denoiser: which object lies under a patch and which piece of it;
    from the text encoder: where the object that a word names will stand. Sharp targets that the picture loss
    gives only faintly, after "Representation Alignment for Generation" (Yu et al. 2024) with exact labels."""

    def __init__(self, width: int, objects: int, pieces: int, places: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.object = nn.Linear(width, objects)
        self.piece = nn.Linear(width, pieces)
        self.place = nn.Linear(width, places)

    def forward(self, middle: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, n, d), (b, m, d) -> logits (b, n, objects), (b, n, pieces), (b, m, places)."""
        x = self.norm(middle.float())
        return self.object(x), self.piece(x), self.place(text.float())
