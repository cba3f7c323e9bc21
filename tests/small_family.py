"""A small latent model with random weights, real in every part: text, convolution, attention, decoder."""

from __future__ import annotations

from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn

from pictura import samplers
from pictura.engine import Ask, translate, watched
from pictura.guidance import cfg
from pictura.levels import VP, Flow, scaled_linear
from pictura.nn.convolution import Conv2d
from pictura.nn.transformer import Attention, pad_rows
from pictura.samplers import schedules

PROCESSES = {"flow": Flow(shift=2.0), "vp": VP(alphas_cumprod=scaled_linear())}


class Denoiser(nn.Module):
    """x (b, 3, h, w), level (b, 2), text (b, 4, 32) -> x_0."""

    def __init__(self):
        super().__init__()
        self.enter, self.leave = Conv2d(3, 32, 3, padding=1), Conv2d(32, 3, 3, padding=1)
        self.level = nn.Linear(2, 32)
        self.attention = Attention(32, 4)
        self.mix = nn.Linear(32, 32)

    def forward(self, x, level, text):
        c = F.silu(self.level(pad_rows(level)))[: len(x), :, None, None]
        y = self.enter(x) + c
        tokens = torch.cat([y.flatten(2).transpose(1, 2), text], 1)  # (b, h w + 4, 32)
        tokens = tokens + self.attention(tokens, torch.zeros(()))
        tokens = tokens + torch.tanh(self.mix(tokens))
        y = tokens[:, :-4].transpose(1, 2).unflatten(2, x.shape[2:])
        return torch.tanh(self.leave(F.silu(y)))


class Small:
    """`evaluate` counts passes and rows by network. `limit` rows is all its memory holds."""

    def __init__(self, limit=None):
        rng_state = torch.get_rng_state()
        torch.manual_seed(0)
        self.words = nn.Parameter(torch.randn(64, 32))
        self.denoiser, self.decoder = Denoiser(), Conv2d(3, 3, 3, padding=1)
        torch.set_rng_state(rng_state)
        self.limit = limit
        self.passes, self.rows = Counter(), Counter()

    def evaluate(self, net, variant, **inputs):
        rows = len(next(iter(inputs.values())))
        self.passes[net] += 1
        self.rows[net] += rows
        if self.limit is not None and rows > self.limit:
            raise torch.OutOfMemoryError(f"tried to allocate {rows} rows")
        if net == "text":
            return F.embedding(inputs["ids"], self.words)
        if net == "decoder":
            return torch.tanh(self.decoder(F.interpolate(inputs["latent"], scale_factor=2.0)))
        return self.denoiser(**inputs)

    def ask_text(self, prompt):
        ids = tuple(prompt.encode()[:4].ljust(4, b"\0"))
        return Ask("text", {"ids": torch.tensor([ids]) % 64}, memo=ids)

    def run(
        self,
        prompt="cat",
        *,
        seed=0,
        num_steps=4,
        scale=2.0,
        sampler="euler",
        schedule="own",
        size=8,
        process="flow",
        note=None,
        **options,
    ):
        rng = torch.Generator().manual_seed(seed)

        def noise():
            return torch.randn(1, 3, size, size, generator=rng)

        def ask(x, level, text):
            return Ask("denoiser", {"x": x, "level": torch.tensor([level]), "text": text})

        text, null = yield self.ask_text(prompt), self.ask_text("")
        levels = schedules.named(schedule)(PROCESSES[process], num_steps)
        denoise = cfg(ask, text, null, scale)
        if note is not None:
            denoise = watched(denoise, note)
        solver = samplers.load(sampler)(levels[0].sigma * noise(), levels, noise, **options)
        latent = yield from translate(solver, denoise)
        (image,) = yield (Ask("decoder", {"latent": latent}),)
        return image
