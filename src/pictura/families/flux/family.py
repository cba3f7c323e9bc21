"""FLUX.1 dev and schnell (Black Forest Labs 2024)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pictura.engine import Ask
from pictura.errors import ParameterError
from pictura.families import Option
from pictura.families.latent import LatentDiffusion, Reading
from pictura.families.latent.options import BLOCK_CACHE
from pictura.families.latent.reading import Condition, clip_answer, ids_of, length_of, read_t5, read_vector
from pictura.formats.rules import Rule
from pictura.levels import Level
from pictura.nn.block_cache import BlockCache
from pictura.nn.clip import ClipText
from pictura.nn.t5 import T5Encoder
from pictura.nn.vae import AutoencoderKL
from pictura.request import MAX_SIDE, Request
from pictura.schedulers import Plan

from . import checkpoint
from .model import FluxTransformer

OPTIONS = (
    Option(name="max_sequence_length", type=int, default=None, help="tokens that T5 reads; 512, schnell 256"),
    Option(
        name="true_guidance_scale", type=float, default=1.0,
        help="guidance away from the negative prompt; above 1 the network is asked twice",
    ),
    BLOCK_CACHE,
)  # fmt: skip


class Flux(LatentDiffusion):
    """See `LatentDiffusion`. guidance_scale is what dev was distilled with; schnell is told none."""

    name: ClassVar[str] = "flux"
    body: ClassVar[str] = "transformer"
    components: ClassVar[tuple[str, ...]] = ("transformer", "vae", "text_encoder", "text_encoder_2")
    even: ClassVar[bool] = True
    options: ClassVar[Mapping[str, Option]] = {
        **LatentDiffusion.options,
        **{option.name: option for option in OPTIONS},
    }
    parameters: ClassVar[frozenset[str]] = frozenset({*LatentDiffusion.parameters, *options})

    def build(self, component: str, config: Mapping[str, Any]) -> nn.Module:
        if component == "text_encoder":
            return ClipText(config, projected=False)
        if component == "text_encoder_2":
            return T5Encoder(config)
        return FluxTransformer(config) if component == "transformer" else AutoencoderKL(config)

    @property
    def transformer(self) -> FluxTransformer:
        transformer = self.parts["transformer"]
        assert isinstance(transformer, FluxTransformer)
        return transformer

    @property
    def distilled(self) -> bool:
        """Whether it is told a guidance scale (dev) or none (schnell)."""
        return bool(self.transformer.config["guidance_embeds"])

    @property
    def length(self) -> int:
        return 512 if self.distilled else 256

    @property
    def multiple(self) -> int:
        return 2 * self.vae.factor

    @property
    def native(self) -> int:
        return int(self.architecture.get("size") or 128 * self.vae.factor)

    @property
    def largest(self) -> int:
        return MAX_SIDE

    def originals(self) -> Mapping[str, Iterable[Rule]]:
        return {"transformer": checkpoint.transformer(self.architecture["transformer"])}

    def standard(self) -> dict[str, Any]:
        return (
            {"num_steps": 28, "guidance_scale": 3.5}
            if self.distilled
            else {"num_steps": 4, "guidance_scale": 0.0}
        )

    def scale_of(self, request: Request) -> float:
        return float(request.options.get("true_guidance_scale") or 1.0)

    def check(self, request: Request) -> None:
        super().check(request)
        length = request.options.get("max_sequence_length")
        if length is not None and not 1 <= length <= 512:
            raise ParameterError(
                f"max_sequence_length is {length}; give 1..512", parameter="max_sequence_length"
            )
        if request.guidance_scale and not self.distilled:
            raise ParameterError(
                f"guidance_scale is {request.guidance_scale:g}; schnell is told none: leave it out or give 0",
                parameter="guidance_scale",
            )

    # Texts

    def read(self, request: Request, prompt: str | None, *, negative: bool = False) -> Reading:
        """Tokens from T5, the vector from CLIP."""
        text = prompt or ""
        pooled = yield from read_vector(self, request, "text_encoder", text)
        context = yield from read_t5(self, request, "text_encoder_2", text)
        return Condition(context=context, pooled=pooled, negative=negative)

    def lengths(self, request: Request) -> Mapping[str, int]:
        length = request.options.get("max_sequence_length") or self.length
        return {**super().lengths(request), "text_encoder_2": length}

    # Asking

    def ask(self, x: Tensor, level: Level, plan: Plan, condition: Condition, request: Request) -> Ask:
        assert condition.pooled is not None
        inputs = {
            "x": x, "time": torch.tensor([plan.time(level) / 1000]), "context": condition.context,
            "pooled": condition.pooled,
        }  # fmt: skip
        if self.distilled:
            inputs["guidance"] = torch.tensor([request.guidance_scale or 0.0])
        return Ask("transformer", inputs)

    def component(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """ "text_encoder": ids (b, 77) -> see `clip_answer`. "text_encoder_2": ids (b, n) -> (b, n, d).
        "transformer": latents x, time (b,) up to 1, context, pooled[, guidance (b,)] -> velocity."""
        if net == "text_encoder":
            return clip_answer(self.parts[net], None, **inputs)
        more = {"cache": variant} if isinstance(variant, BlockCache) else {}
        answer: Tensor = self.parts[net](**inputs, **more)
        return answer

    # Training

    def tokens_of(self, prompt: str) -> dict[str, tuple[int, ...]]:
        lengths = {"text_encoder": length_of(self.parts["text_encoder"]), "text_encoder_2": self.length}
        return {name: ids_of(self.assets, name, prompt, length) for name, length in lengths.items()}

    def conditioned(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        text = self.parts["text_encoder"](batch["text_encoder"])
        return {"context": self.parts["text_encoder_2"](batch["text_encoder_2"]), "pooled": text.pooled}

    def predict_rows(self, x: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        guidance = torch.ones(len(x), device=x.device) if self.distilled else None
        answer: Tensor = self.transformer(x, time, condition["context"], condition["pooled"], guidance)
        return answer


FAMILY = Flux
