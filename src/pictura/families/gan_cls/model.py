"""The two networks of GAN-CLS (Reed et al. 2016, "Generative Adversarial Text to Image Synthesis").

As in the paper the generator turns noise and an embedded caption into a picture through strided transposed
convolutions, and the discriminator turns a picture into a 4x4 map through strided convolutions, to which the
embedded caption is appended. Unlike the paper's, the text encoder is learnt along, the generator's first map
is 8x8 and reads the words by attention (a cell asks for the word that belongs there), noise enters by scaling
and shifting that map, and no layer looks at other pictures of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.nn import convolution
from pictura.nn.transformer import Linear, pad_rows, rms_norm

GRID = 8  # side of the generator's first map
PATCH = 8  # pixels under a cell of that map
EMBEDDING_GAIN = 4.0  # words are rare: scaling small weights up multiplies their learning rate


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of both networks. `kinds` and `parts` are the classes of the auxiliary patch labels."""

    words: int = 320
    length: int = 8
    latent: int = 32
    width: int = 176
    heads: int = 4
    text_blocks: int = 2
    map_blocks: int = 3
    up: tuple[int, int] = (128, 64)
    down: tuple[int, int, int, int] = (32, 64, 96, 96)
    sentence: int = 80
    kinds: int = 241
    parts: int = 17

    @property
    def size(self) -> int:
        return GRID * PATCH


class Conv2d(convolution.Conv2d):
    """Weights stay as they are; the product is in the input's dtype."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


class Transposed2d(nn.ConvTranspose2d):
    """4x4, stride 2: twice the side. Weights stay as they are; the product is in the input's dtype."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__(inner, outer, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)  # type: ignore[union-attr]
        return F.conv_transpose2d(x, weight, bias, stride=2, padding=1)


class Norm(nn.Module):
    """Root mean square over the last axis to 1, times a learnt weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight)


class Attention(nn.Module):
    """Queries (b, m, c) read words (b, n, c); `mask` (b, n) is true at words."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width, bias=False)
        self.key_value = Linear(width, 2 * width, bias=False)
        self.output = Linear(width, width, bias=False)

    def forward(self, x: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        # Contiguous, since another memory layout at b = 1 would take another kernel with other last bits.
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2).contiguous()  # (b, heads, m, d)
        k, v = self.key_value(words).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).contiguous()
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (b, heads, m, n)
        weights = scores.masked_fill(~mask[:, None, None], -torch.inf).softmax(-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm attention to `words` (or to x itself) and a two-layer perceptron."""

    def __init__(self, width: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(Linear(width, ratio * width), nn.GELU(), Linear(ratio * width, width))

    def forward(self, x: Tensor, mask: Tensor, words: Tensor | None = None) -> Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h if words is None else words, mask)
        return x + self.mlp(self.norm2(x))


class Text(nn.Module):
    """Word ids (b, n), 0 is padding, to words in context (b, n, c) and the whole sentence (b, c), in `dtype`
    (that of the weights if None), which all that follows takes over."""

    def __init__(self, words: int, length: int, width: int, heads: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(words, width) * 0.5 / EMBEDDING_GAIN)
        self.position = nn.Parameter(torch.randn(length, width) * 0.5 / EMBEDDING_GAIN)
        self.blocks = nn.ModuleList(Block(width, heads, 2) for _ in range(blocks))
        self.norm = Norm(width)

    def forward(self, ids: Tensor, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        mask = ids != 0
        x = (EMBEDDING_GAIN * (self.embedding[ids] + self.position)).to(dtype or self.embedding.dtype)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        m = mask[..., None].to(x.dtype)
        return x, (x * m).sum(1) / m.sum(1)


class Up(nn.Module):
    """DCGAN's step up: 4x4 transposed convolution of stride 2, normalisation over channels, ReLU."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = Transposed2d(inner, outer)

    def forward(self, x: Tensor) -> Tensor:  # (b, i, h, w) -> (b, o, 2h, 2w)
        x = self.conv(x)
        return F.relu(rms_norm(x.movedim(1, -1)).movedim(-1, 1))


class Down(nn.Module):
    """DCGAN's step down: 4x4 convolution of stride 2, LeakyReLU 0.2."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.conv = Conv2d(inner, outer, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:  # (b, i, h, w) -> (b, o, h/2, w/2)
        return F.leaky_relu(self.conv(x), 0.2)


class Generator(nn.Module):
    """`forward`: noise (b, latent) and word ids (b, n) to pictures (b, 3, 64, 64) in [-1, 1].

    The parts are separate so that training can mix captions (GAN-INT), ask for the patch labels, and try
    several noises on one map.
    """

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        c = a.width
        self.text = Text(a.words, a.length, c, a.heads, a.text_blocks)
        self.cells = nn.Parameter(torch.randn(GRID * GRID, c) * 0.5)
        self.blocks = nn.ModuleList(Block(c, a.heads, 4) for _ in range(a.map_blocks))
        self.norm = Norm(c)
        self.labels = Linear(c, a.kinds + a.parts)
        self.noise = nn.Sequential(Linear(a.latent + c, c), nn.LeakyReLU(0.2), Linear(c, 2 * c))
        self.preview = Linear(c, 3)
        self.mix = nn.Sequential(Linear(c, 3 * c), nn.GELU(), Linear(3 * c, c))
        self.sketch = Linear(c, 3 * PATCH * PATCH)
        self.up = nn.Sequential(Up(c, a.up[0]), Up(*a.up))
        self.output = Transposed2d(a.up[1], 3)

    def draw_map(self, words: Tensor, mask: Tensor) -> Tensor:
        """Words in context (b, n, c) to the map without noise (b, 64, c)."""
        x = self.cells.to(words.dtype).expand(words.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, mask, words)
        return self.norm(x)

    def add_noise(self, x: Tensor, sentence: Tensor, z: Tensor) -> Tensor:
        """The map (b, 64, c), scaled and shifted by noise (b, latent) in view of the sentence (b, c)."""
        both = pad_rows(torch.cat((z.to(x.dtype), sentence), 1))
        scale, shift = self.noise(both)[: len(z), None].chunk(2, -1)
        return x * (1 + scale) + shift

    def paint(self, x: Tensor) -> Tensor:
        """The map with noise (b, 64, c) to pictures (b, 3, 64, 64): every cell's own 8x8 pixels, linearly,
        plus what the transposed convolutions add across cells."""
        x = x + self.mix(x)
        sketch = self.sketch(x).transpose(1, 2).unflatten(-1, (GRID, GRID))  # (b, 192, 8, 8)
        x = (
            x.transpose(1, 2).unflatten(-1, (GRID, GRID)).contiguous()
        )  # one layout, whatever b: see Attention
        return (F.pixel_shuffle(sketch, PATCH) + self.output(self.up(x))).float().tanh()

    def forward(self, z: Tensor, ids: Tensor) -> Tensor:
        words, sentence = self.text(ids)
        return self.paint(self.add_noise(self.draw_map(words, ids != 0), sentence, z))


class Discriminator(nn.Module):
    """`forward`: pictures (b, 3, 64, 64) and sentences (b, s) to logits (b,): real, and told by the words."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        d, s = a.down, a.sentence
        self.text = Text(a.words, a.length, s, a.heads, 1)
        self.early = nn.Sequential(Down(3, d[0]), Down(d[0], d[1]), Down(d[1], d[2]))  # 8x8
        self.late = Down(d[2], d[3])  # 4x4
        self.labels = Linear(d[2], a.kinds + a.parts)
        self.read = Linear(s, d[3])
        self.join = Conv2d(d[3] + s, d[3], 1)
        self.output = Conv2d(d[3], 1, 4)

    def look(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures to the 8x8 map (b, 64, c) that labels are read from, and the 4x4 map (b, c, 4, 4)."""
        early = self.early(images)
        return early.flatten(2).transpose(1, 2), self.late(early)

    def judge(self, x: Tensor, sentence: Tensor) -> Tensor:
        """The 4x4 map (b, c, 4, 4) and sentences (b, s) to logits (b,).

        The paper's appended caption, and a projection (Miyato and Koyama 2018): words times what is seen.
        """
        tiled = sentence[:, :, None, None].expand(-1, -1, *x.shape[2:])
        joined = F.leaky_relu(self.join(torch.cat((x, tiled), 1)), 0.2)
        read = self.read(pad_rows(sentence))[: len(sentence)]
        projection = (read * x.mean((2, 3))).sum(1) / x.shape[1] ** 0.5
        return (self.output(joined).flatten() + projection).float()

    def forward(self, images: Tensor, sentence: Tensor) -> Tensor:
        return self.judge(self.look(images)[1], sentence)
