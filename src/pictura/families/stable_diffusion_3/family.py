"""Stable Diffusion 3 and 3.5 (Esser et al. 2024)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.engine import Ask
from pictura.errors import ParameterError
from pictura.families import Option
from pictura.families.latent import LatentDiffusion, Reading
from pictura.families.latent.options import BLOCK_CACHE
from pictura.families.latent.reading import (
    Condition,
    clip_answer,
    ids_of,
    layer_of,
    length_of,
    read_clip,
    read_t5,
)
from pictura.formats.rules import Rule
from pictura.levels import Level
from pictura.nn.block_cache import BlockCache
from pictura.nn.clip import ClipText
from pictura.nn.t5 import T5Encoder
from pictura.nn.vae import AutoencoderKL
from pictura.request import Request
from pictura.schedulers import Plan

from . import checkpoint
from .model import MMDiT

LENGTH = 256  # tokens that T5 reads unless the request says otherwise
CLIPS = ("text_encoder", "text_encoder_2")
T5 = "text_encoder_3"
OPTIONS = (
    Option(name="max_sequence_length", type=int, default=LENGTH, help="tokens that T5 reads, up to 512"),
    BLOCK_CACHE,
    Option(name="clip_skip", type=int, default=0, help="read the text this many layers before the last"),
)


class StableDiffusion3(LatentDiffusion):
    """See `LatentDiffusion`. Without `text_encoder_3`, which takes most of the memory, zeros stand for it."""

    name: ClassVar[str] = "stable_diffusion_3"
    body: ClassVar[str] = "transformer"
    components: ClassVar[tuple[str, ...]] = ("transformer", "vae", *CLIPS, T5)
    options: ClassVar[Mapping[str, Option]] = {
        **LatentDiffusion.options,
        **{option.name: option for option in OPTIONS},
    }
    parameters: ClassVar[frozenset[str]] = frozenset({*LatentDiffusion.parameters, *options})

    def build(self, component: str, config: Mapping[str, Any]) -> nn.Module:
        if component == T5:
            return T5Encoder(config)
        if component in CLIPS:
            return ClipText(config, projected=True)
        return MMDiT(config) if component == "transformer" else AutoencoderKL(config)

    @property
    def transformer(self) -> MMDiT:
        transformer = self.parts["transformer"]
        assert isinstance(transformer, MMDiT)
        return transformer

    @property
    def inpaints(self) -> bool:
        return bool(self.transformer.config["in_channels"] == 2 * self.vae.config.latent_channels + 1)

    @property
    def multiple(self) -> int:
        return int(self.vae.factor * self.transformer.patch)

    @property
    def native(self) -> int:
        return int(self.architecture.get("size") or self.transformer.config["sample_size"] * self.vae.factor)

    @property
    def largest(self) -> int:
        """As many patches as it has positions for."""
        return int(self.transformer.config["pos_embed_max_size"]) * self.multiple

    def originals(self) -> Mapping[str, Iterable[Rule]]:
        return {"transformer": checkpoint.transformer(self.architecture["transformer"])}

    def standard(self) -> dict[str, Any]:
        return {"num_steps": 28, "guidance_scale": 7.0}

    def check(self, request: Request) -> None:
        super().check(request)
        length, skip = request.options.get("max_sequence_length"), request.options.get("clip_skip") or 0
        if length is not None and not 1 <= length <= 512:
            raise ParameterError(
                f"max_sequence_length is {length}; give 1..512", parameter="max_sequence_length"
            )
        most = min(self.architecture[name].get("num_hidden_layers", 12) for name in CLIPS) - 2
        if not 0 <= skip <= most:
            raise ParameterError(f"clip_skip is {skip}; give 0..{most}", parameter="clip_skip")

    # Texts

    def read(self, request: Request, prompt: str | None, *, negative: bool = False) -> Reading:
        """Both CLIP encoders beside each other, padded to T5's width, then T5 behind them."""
        skip = 0 if negative else request.options.get("clip_skip") or 0  # as the field does
        text, contexts, vectors = prompt or "", [], []
        for name in CLIPS:
            tokens, pooled = yield from read_clip(self, request, name, text, -skip - 2)
            contexts.append(tokens)
            vectors.append(pooled)
        long = torch.zeros(1, self._length(request), self._width())
        if T5 in self.parts:
            long = yield from read_t5(self, request, T5, text)
        return Condition(context=_joined(contexts, long), pooled=torch.cat(vectors, -1), negative=negative)

    def lengths(self, request: Request) -> Mapping[str, int]:
        found = {**super().lengths(request), T5: self._length(request)}
        return {name: length for name, length in found.items() if name in self.parts}

    def _length(self, request: Request) -> int:
        return int(request.options.get("max_sequence_length") or LENGTH)

    def _width(self) -> int:
        return int(self.transformer.config["joint_attention_dim"])

    # Asking

    def ask(self, x: Tensor, level: Level, plan: Plan, condition: Condition, request: Request) -> Ask:
        assert condition.pooled is not None
        time = torch.tensor([plan.time(level)])
        return Ask(
            "transformer",
            {"x": x, "time": time, "context": condition.context, "pooled": condition.pooled},
        )

    def component(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """ "text_encoder", "text_encoder_2": ids (b, 77) -> see `clip_answer`. "text_encoder_3": ids (b,
        n) -> (b, n, d). "transformer": latents x, time (b,) up to 1000, context, pooled -> velocity."""
        if net in CLIPS:
            return clip_answer(self.parts[net], layer_of(variant), **inputs)
        more = {"cache": variant} if isinstance(variant, BlockCache) else {}
        answer: Tensor = self.parts[net](**inputs, **more)
        return answer

    # Training

    def tokens_of(self, prompt: str) -> dict[str, tuple[int, ...]]:
        lengths = {name: length_of(self.parts[name]) for name in CLIPS} | (
            {T5: LENGTH} if T5 in self.parts else {}
        )
        return {name: ids_of(self.assets, name, prompt, length) for name, length in lengths.items()}

    def conditioned(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        texts = [self.parts[name](batch[name]) for name in CLIPS]
        long = texts[0].last.new_zeros(len(texts[0].last), LENGTH, self._width())
        if T5 in self.parts:
            long = self.parts[T5](batch[T5])
        context = _joined([text.hidden[-2] for text in texts], long)
        return {"context": context, "pooled": torch.cat([text.projected for text in texts], -1)}

    def predict_rows(self, x: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        answer: Tensor = self.transformer(x, 1000 * time, condition["context"], condition["pooled"])
        return answer


def _joined(contexts: list[Tensor], long: Tensor) -> Tensor:
    short = torch.cat(contexts, -1)
    return torch.cat([F.pad(short, (0, long.shape[-1] - short.shape[-1])), long], 1)


FAMILY = StableDiffusion3
