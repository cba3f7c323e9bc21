"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022) and XL (Podell et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pictura.engine import Ask
from pictura.errors import ParameterError
from pictura.families import Option
from pictura.families.latent import LatentDiffusion, Reading
from pictura.families.latent.options import DEEP_CACHE
from pictura.families.latent.reading import Condition, clip_answer, ids_of, layer_of, length_of, read_clip
from pictura.formats.rules import Rule
from pictura.levels import Level
from pictura.nn.clip import ClipText
from pictura.nn.deep_cache import DeepCache
from pictura.nn.unet import UNet
from pictura.nn.vae import AutoencoderKL
from pictura.request import MAX_SIDE, Request
from pictura.schedulers import Plan

from . import checkpoint
from .sizes import XL, micro
from .steering import OPTIONS as STEERING
from .steering import Steering

NETWORKS = {"unet": UNet, "vae": AutoencoderKL}


class StableDiffusion(LatentDiffusion):
    """See `LatentDiffusion`."""

    name: ClassVar[str] = "stable_diffusion"
    body: ClassVar[str] = "unet"
    components: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder", "text_encoder_2")
    options: ClassVar[Mapping[str, Option]] = {
        **LatentDiffusion.options,
        **{option.name: option for option in XL},
        DEEP_CACHE.name: DEEP_CACHE,
        **{option.name: option for option in STEERING},
        "clip_skip": Option(
            name="clip_skip", type=int, default=0, help="read the text this many layers before the last"
        ),
    }
    parameters: ClassVar[frozenset[str]] = frozenset({*LatentDiffusion.parameters, *options})

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.steering = Steering(lambda: self.unet)

    def build(self, component: str, config: Mapping[str, Any]) -> nn.Module:
        if component in NETWORKS:
            return NETWORKS[component](config)
        return ClipText(config, projected=component == "text_encoder_2")

    @property
    def unet(self) -> UNet:
        unet = self.parts["unet"]
        assert isinstance(unet, UNet)
        return unet

    @property
    def xl(self) -> bool:
        return self.unet.config.addition_embed_type == "text_time"

    @property
    def inpaints(self) -> bool:
        return self.unet.config.in_channels == 2 * self.vae.config.latent_channels + 1

    @property
    def native(self) -> int:
        side = self.architecture["unet"].get("sample_size") or 64
        return int(
            self.architecture.get("size") or (side if isinstance(side, int) else side[0]) * self.vae.factor
        )

    @property
    def largest(self) -> int:
        return MAX_SIDE

    def originals(self) -> Mapping[str, Iterable[Rule]]:
        return {"unet": checkpoint.unet(self.architecture["unet"])}

    def standard(self) -> dict[str, Any]:
        return {"num_steps": 50, "guidance_scale": 5.0 if self.xl else 7.5}

    def scheduled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The pipeline of 1.x and 2.x counts steps from 1 whatever the file says."""
        return dict(config) if self.xl else {**config, "steps_offset": 1}

    def scale_of(self, request: Request) -> float:
        """A distilled network is told the scale, and asked once."""
        return 1.0 if self.unet.config.time_cond_proj_dim else request.guidance_scale or 0.0

    def resolve(self, request: Request) -> Request:
        return self.steering.resolve(super().resolve(request))

    def check(self, request: Request) -> None:
        super().check(request)
        self.steering.check(request)
        micro(request, self.xl)
        layers = [
            len(part.text_model.encoder.layers) for part in self.parts.values() if isinstance(part, ClipText)
        ]
        skip, most = request.options.get("clip_skip") or 0, min(layers) - 1 - self.xl
        if not 0 <= skip <= most:
            raise ParameterError(f"clip_skip is {skip}; give 0..{most}", parameter="clip_skip")

    # Texts

    def read(self, request: Request, prompt: str | None, *, negative: bool = False) -> Reading:
        """1.x and 2.x read the last layer, XL the last but one of both encoders and the second's vector. XL
        takes zeros for a negative prompt that is not there."""
        skip = 0 if negative else request.options.get("clip_skip") or 0  # as the field does
        encoders = [name for name in ("text_encoder", "text_encoder_2") if name in self.parts]
        if not self.xl:
            layer = str(-skip - 1) if skip else None
            tokens, _ = yield from read_clip(self, request, "text_encoder", prompt or "", layer)
            return Condition(context=tokens, negative=negative)
        contexts, pooled = [], None
        for name in encoders:
            tokens, pooled = yield from read_clip(self, request, name, prompt or "", -skip - 2)
            contexts.append(tokens)
        assert pooled is not None
        context = torch.cat(contexts, -1)
        if prompt is None and self.architecture.get("force_zeros_for_empty_prompt", True):
            context, pooled = torch.zeros_like(context), torch.zeros_like(pooled)
        return Condition(context=context, pooled=pooled, negative=negative)

    # Asking

    def ask(self, x: Tensor, level: Level, plan: Plan, condition: Condition, request: Request) -> Ask:
        inputs = {"x": x, "time": torch.tensor([plan.time(level)]), "context": condition.context}
        if self.xl:
            assert condition.pooled is not None
            ids = micro(request, self.xl, negative=condition.negative, count=self._ids())
            inputs |= {
                "pooled": condition.pooled,
                "size": torch.tensor([[round(1000 * number) for number in ids]]),
            }
        if self.unet.config.time_cond_proj_dim:
            inputs["guidance"] = torch.tensor([request.guidance_scale or 0.0])
        variant = self.steering.variant(request, plan, level, negative=condition.negative)
        return Ask("unet", inputs, variant)

    def component(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """ "text_encoder", "text_encoder_2": ids (b, 77) -> see `clip_answer`. "unet": latents x, time (b,),
        context (b, n, d), for XL pooled and 1000 times size (b, 6) -> noise or velocity."""
        if net != "unet":
            return clip_answer(self.parts[net], layer_of(variant), **inputs)
        added = None
        if "pooled" in inputs:  # whole thousandths, which half precision does not round
            added = self.unet.sizes(inputs["pooled"], inputs["size"].float() / 1000)
        wide, told = self.unet.config.time_cond_proj_dim, None
        if wide:
            told = _waves(inputs["guidance"].float() - 1, wide).to(inputs["x"])
        cache = variant if isinstance(variant, DeepCache) else None
        x, time, context = inputs["x"], inputs["time"], inputs["context"]
        steered = self.steering.arguments(variant, x, time, context, added=added, condition=told)
        answer: Tensor = self.unet(x, time, context, added, condition=told, cache=cache, **steered)
        return answer

    def _ids(self) -> int:
        """How many numbers XL is told beside the text: six, or five of its refiner."""
        config = self.unet.config
        pooled = self.architecture["text_encoder_2"].get("projection_dim", 512)
        width, each = config.projection_class_embeddings_input_dim, config.addition_time_embed_dim
        assert width is not None and each is not None  # the network was built with them
        return int(width - pooled) // each

    # Training

    def tokens_of(self, prompt: str) -> dict[str, tuple[int, ...]]:
        names = [name for name in ("text_encoder", "text_encoder_2") if name in self.parts]
        return {name: ids_of(self.assets, name, prompt, length_of(self.parts[name])) for name in names}

    def conditioned(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        texts = [
            self.parts[name](batch[name]) for name in ("text_encoder", "text_encoder_2") if name in batch
        ]
        if not self.xl:
            return {"context": texts[0].last}
        context = torch.cat([text.hidden[-2] for text in texts], -1)
        return {
            "context": context,
            "pooled": texts[-1].projected,
            "size": 1000 * batch["size"][:, : self._ids()],
        }

    def predict_rows(self, x: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        extra = (
            {"guidance": torch.ones(len(x), device=x.device)} if self.unet.config.time_cond_proj_dim else {}
        )
        return self.component("unet", (), x=x, time=time, **condition, **extra)


def _waves(scale: Tensor, width: int) -> Tensor:
    """Guidance scales (b,) less 1 as sinusoids (b, width) (Meng et al. 2023; Luo et al. 2023)."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=scale.device) / (half - 1))
    angles = 1000 * scale[:, None] * frequencies
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], -1), (0, width % 2))


FAMILY = StableDiffusion
