"""The architectures as published, from names and shapes alone: configurations as in diffusers' folders, and
the number of parameters that each model has."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from pictura.families.flux import checkpoint as flux
from pictura.families.stable_diffusion import checkpoint as sd
from pictura.families.stable_diffusion_3 import checkpoint as sd3
from pictura.formats.parts import Found, Part
from pictura.formats.rules import export
from pictura.formats.safetensors import Entry

ATTENDS = "CrossAttnDownBlock2D"
SD1 = {"block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "cross_attention_dim": 768,
       "attention_head_dim": 8, "sample_size": 64, "in_channels": 4, "out_channels": 4,
       "down_block_types": [ATTENDS, ATTENDS, ATTENDS, "DownBlock2D"]}  # fmt: skip
SD2 = {**SD1, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "sample_size": 96,
       "use_linear_projection": True}  # fmt: skip
XL = {"block_out_channels": [320, 640, 1280], "layers_per_block": 2, "cross_attention_dim": 2048,
      "attention_head_dim": [5, 10, 20], "use_linear_projection": True, "sample_size": 128,
      "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time",
      "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
      "down_block_types": ["DownBlock2D", ATTENDS, ATTENDS]}  # fmt: skip
REFINER = {**XL, "block_out_channels": [384, 768, 1536, 1536], "cross_attention_dim": 1280,
           "attention_head_dim": [6, 12, 24, 24], "transformer_layers_per_block": [1, 4, 4, 4],
           "projection_class_embeddings_input_dim": 2560,
           "down_block_types": ["DownBlock2D", ATTENDS, ATTENDS, "DownBlock2D"]}  # fmt: skip
SD3 = {"num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "in_channels": 16,
       "out_channels": 16, "patch_size": 2, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
       "pooled_projection_dim": 2048, "pos_embed_max_size": 192, "qk_norm": None}  # fmt: skip
SD35 = {**SD3, "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": list(range(13))}
LARGE = {**SD3, "num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432,
         "qk_norm": "rms_norm"}  # fmt: skip
DEV = {"num_layers": 19, "num_single_layers": 38, "num_attention_heads": 24, "attention_head_dim": 128,
       "in_channels": 64, "joint_attention_dim": 4096, "pooled_projection_dim": 768, "guidance_embeds": True,
       "axes_dims_rope": [16, 56, 56]}  # fmt: skip
MODELS: dict[str, tuple[str, Part, dict[str, Any], str, int]] = {
    "sd1": ("UNet2DConditionModel", sd.UNET, SD1, "1.x", 859_520_964),
    "sd2": ("UNet2DConditionModel", sd.UNET, SD2, "2.x", 865_910_724),
    "xl": ("UNet2DConditionModel", sd.UNET, XL, "xl", 2_567_463_684),
    "xl-refiner": ("UNet2DConditionModel", sd.UNET, REFINER, "xl", 0),
    "sd3": ("SD3Transformer2DModel", sd3.TRANSFORMER, SD3, "3", 2_028_328_000 + 56_623_104),
    "sd3.5-medium": ("SD3Transformer2DModel", sd3.TRANSFORMER, SD35, "3.5", 2_243_171_520 + 226_492_416),
    "sd3.5-large": ("SD3Transformer2DModel", sd3.TRANSFORMER, LARGE, "3.5", 8_056_627_520 + 89_653_248),
    "flux-dev": ("FluxTransformer2DModel", flux.TRANSFORMER, DEV, "flux-dev", 11_901_408_320),
    "flux-schnell": ("FluxTransformer2DModel", flux.TRANSFORMER, {**DEV, "guidance_embeds": False},
                     "flux-schnell", 11_891_178_560),
}  # fmt: skip
VERSION = {sd.UNET: sd.version, sd3.TRANSFORMER: sd3.version, flux.TRANSFORMER: flux.version}


def without_memory(kind: str, config: dict[str, Any]) -> Any:
    import diffusers

    if kind == "UNet2DConditionModel":
        ups = [name.replace("Down", "Up") for name in reversed(config["down_block_types"])]
        config = {**config, "up_block_types": ups}
    with torch.device("meta"):
        return getattr(diffusers, kind).from_config(config)


def described(state: dict[str, torch.Tensor]) -> dict[str, Entry]:
    """Entries as a file's header would give them."""
    return {
        name: Entry("F16", tuple(tensor.shape), 0, 2 * tensor.numel(), Path("file"))
        for name, tensor in state.items()
    }


@pytest.mark.parametrize("name", MODELS)
def test_published_architectures(name: str) -> None:
    kind, part, published, version, count = MODELS[name]
    model = without_memory(kind, published)
    state = model.state_dict()
    assert count in (0, sum(tensor.numel() for tensor in state.values()))  # 0: we know of no published figure
    theirs = {
        key: parts[0]._replace(shape=(sum(one.shape[0] for one in parts), *parts[0].shape[1:]))
        if len(parts) > 1
        else parts[0]
        for key, parts in export(described(state), list(part.rules(model.config))).items()
    }
    found = Found(part=part, file=Path("file"), entries=theirs)
    config, entries = found.read()
    assert {key: config[key] for key in published} == published
    assert VERSION[part](config) == version
    assert {key.partition(".")[2]: entry.shape for key, entry in entries.items()} == {
        key: tuple(tensor.shape) for key, tensor in state.items()
    }
    assert count in (0, sum(math.prod(entry.shape) for entry in entries.values()))
