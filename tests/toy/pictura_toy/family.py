"""The toy's algorithm: flow matching on 8x8 pictures, conditioned on the mean of hashed words."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from pictura import samplers
from pictura.engine import Ask, translate, watched
from pictura.errors import ParameterError, PresetError
from pictura.families import Option
from pictura.guidance import cfg
from pictura.levels import Flow
from pictura.samplers import schedules

SIDE, WORDS, LONGEST = 8, 64, 6
LEXICON = "red green blue gray black white square".split()


class Denoiser(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Linear(3 * SIDE * SIDE, width)
        self.time = nn.Linear(1, width)
        self.leave = nn.Linear(width, 3 * SIDE * SIDE)
        self.words = nn.Linear(width, 3 * SIDE * SIDE)

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> Tensor:
        # Rows of a matrix agree in every bit from four rows on.
        rows, pad = len(x), max(0, 4 - len(x))
        x, time, text = (torch.cat([v, v[:1].expand(pad, *v.shape[1:])]) for v in (x, time, text))
        hidden = torch.tanh(self.enter(x.flatten(1)) + self.time(time[:, None]) + text)
        return (self.leave(hidden) + self.words(text)).unflatten(1, (3, SIDE, SIDE))[:rows]


class Toy:
    name: ClassVar[str] = "toy"
    parameters: ClassVar[frozenset[str]] = frozenset(
        {"negative_prompt", "num_steps", "guidance_scale", "sampler", "schedule", "tint"}
    )
    options: ClassVar[Mapping[str, Option]] = {
        "tint": Option(name="tint", type=float, default=0.0, help="added to every pixel, -1 to 1")
    }

    def __init__(self, width: int = 32) -> None:
        if type(width) is not int or not 1 <= width <= 2**40:
            raise PresetError(f"toy: width is {width!r}; give a whole number above 0")
        if str(width) == os.environ.get("TOY_DEADLY_WIDTH"):  # what a process gets that wants too much memory
            os.kill(os.getpid(), signal.SIGKILL)
        self.width = width
        self.text = nn.Embedding(WORDS, width)
        self.denoiser = Denoiser(width)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        if set(config) - {"width"}:
            raise PresetError(f"toy: the configuration has {sorted(config)}; it may have 'width' only")
        return cls(**config)

    def config(self) -> dict[str, Any]:
        return {"width": self.width}

    def defaults(self) -> dict[str, Any]:
        return {"num_steps": 4, "guidance_scale": 2.0, "sampler": "euler", "schedule": "own"}

    def check(self, request: Any) -> None:
        samplers.load(request.sampler)
        schedules.named(request.schedule)(Flow(), request.num_steps)
        if not -1 <= request.options.get("tint", 0.0) <= 1:
            raise ParameterError(f"tint is {request.options['tint']}; give -1..1", parameter="tint")

    def notes(self, request: Any) -> tuple[str, ...]:
        unknown = [word for word in request.prompt.split() if word not in LEXICON]
        notes = tuple(f"unknown word {word!r}" for word in unknown)
        return notes if request.prompt else ("empty prompt: unconditional picture",)

    def run(self, request: Any, note: Any) -> Generator[tuple[Ask, ...], tuple[Tensor, ...], Tensor]:
        rng = torch.Generator().manual_seed(request.seed)

        def noise() -> Tensor:
            return torch.randn(1, 3, SIDE, SIDE, generator=rng)

        def ask(x: Tensor, level: Any, text: Tensor) -> Ask:
            return Ask("denoiser", {"x": x, "time": torch.tensor([level.sigma]), "text": text})

        text, null = yield self._words(request.prompt), self._words(request.negative_prompt or "")
        levels = schedules.named(request.schedule)(Flow(), request.num_steps)
        denoise = watched(cfg(ask, text, null, request.guidance_scale), note)
        x = yield from translate(samplers.load(request.sampler)(noise(), levels, noise), denoise)
        return (x + request.options.get("tint", 0.0)).clamp(-1, 1)

    def evaluate(self, net: str, variant: object, **inputs: Tensor) -> Tensor:
        if net == "text":
            ids = inputs["ids"]
            text = self.text(ids.clamp_min(0))
            return (text * (ids >= 0)[..., None]).mean(1).float()
        dtype = self.denoiser.enter.weight.dtype
        return self.denoiser(**{name: value.to(dtype) for name, value in inputs.items()}).float()

    def networks(self) -> dict[str, nn.Module]:
        return {"text": self.text, "denoiser": self.denoiser}

    def begin_training(self, sample: Mapping[str, Tensor] | None, **recipe: Any) -> dict[str, nn.Module]:
        return self.networks()

    def prepare(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        pictures = np.stack([np.asarray(example["images"]) for example in examples])
        return {
            "image": torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1,
            "ids": torch.cat([self._ids(example["prompts"]) for example in examples]),
        }

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        prediction, target = self.predict(batch, rng)
        return {"text+denoiser": (prediction - target).square().mean()}

    def predict(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        image = batch["image"]
        t = torch.rand(len(image), generator=rng)
        noise = torch.randn(image.shape, generator=rng)
        z = image + t[:, None, None, None] * (noise - image)
        return self.denoiser(z, t, self.evaluate("text", (), ids=batch["ids"])), image

    def _ids(self, text: str) -> Tensor:
        ids = [zlib.crc32(word.encode()) % WORDS for word in text.split()][:LONGEST]
        return torch.tensor([ids + [-1] * (LONGEST - len(ids))])

    def _words(self, text: str) -> Ask:
        return Ask("text", {"ids": self._ids(text)}, memo=text)


FAMILY = Toy
