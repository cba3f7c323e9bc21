"""Tiny pipelines of diffusers with random weights: what people have, in miniature."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from oracle import fill

WORDS = ["a", "cat", "dog", "red", "blue", "sky", "tree", "on"]


def seeded(module: torch.nn.Module, seed: int) -> Any:
    """`module` with every parameter redrawn: those that the library sets to zero would hide mistakes."""
    fill(module, seed, 0.06)
    return module.eval()


def merges_of(words: Iterable[str]) -> dict[str, bytes]:
    """The vocabulary and merges of a CLIP tokenizer that knows letters and a few words."""
    letters = [chr(code) for code in range(97, 123)]
    pieces, merges = letters + [f"{letter}</w>" for letter in letters], []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append(f"{parts[0]} {parts[1]}")
            parts[:2] = [parts[0] + parts[1]]
            pieces.append(parts[0])
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(["!", *pieces]))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    lines = ["#version: 0.2", *dict.fromkeys(merges)]
    return {"vocab.json": json.dumps(vocabulary).encode(), "merges.txt": "\n".join(lines).encode() + b"\n"}


def clip_tokenizer(folder: Path, pad: str = "<|endoftext|>") -> Any:
    from transformers import CLIPTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    for name, content in merges_of(WORDS).items():
        (folder / name).write_bytes(content)
    return CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=77)


def t5_tokenizer() -> Any:
    """A T5 tokenizer over a unigram vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    letters = [chr(code) for code in range(97, 123)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(f"▁{word}", -1.0) for word in WORDS] + [(letter, -4.0) for letter in letters if letter != "a"]
    pieces += [("a", -4.0)]
    core = Tokenizer(models.Unigram(pieces, unk_id=2))
    core.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return T5TokenizerFast(tokenizer_object=core, extra_ids=0, eos_token="</s>", pad_token="<pad>",
                           unk_token="<unk>", model_max_length=32)  # fmt: skip


def clip(kind: str = "CLIPTextModel", seed: int = 0, **changes: Any) -> Any:
    import transformers

    config = {
        "vocab_size": 70,
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": 77,
        "projection_dim": 24,
        "hidden_act": "quick_gelu",
        "bos_token_id": 68,
        "eos_token_id": 69,
        "pad_token_id": 1,
    } | changes
    # fmt: skip
    return seeded(getattr(transformers, kind)(transformers.CLIPTextConfig(**config)), seed)


def t5(seed: int = 0, **changes: Any) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = {"vocab_size": 100, "d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
              "feed_forward_proj": "gated-gelu"} | changes  # fmt: skip
    return seeded(T5EncoderModel(T5Config(**config)), seed)


def vae(seed: int = 0, **changes: Any) -> Any:
    from diffusers import AutoencoderKL

    config = {"block_out_channels": (32, 64), "down_block_types": ("DownEncoderBlock2D",) * 2,
              "up_block_types": ("UpDecoderBlock2D",) * 2, "layers_per_block": 1, "latent_channels": 4,
              "norm_num_groups": 8, "sample_size": 32} | changes  # fmt: skip
    return seeded(AutoencoderKL(**config), seed)


def unet(seed: int = 0, **changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    config = {"sample_size": 16, "block_out_channels": (32, 64, 64), "layers_per_block": 2,
              "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
              "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
              "cross_attention_dim": 32, "attention_head_dim": 4, "norm_num_groups": 8} | changes  # fmt: skip
    return seeded(UNet2DConditionModel(**config), seed)


def sd1(folder: Path) -> Any:
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    scheduler = PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                              skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False)  # fmt: skip
    return StableDiffusionPipeline(
        vae=vae(1), unet=unet(2), text_encoder=clip(seed=3), tokenizer=clip_tokenizer(folder),
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sd2(folder: Path) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                              clip_sample=False, steps_offset=1, set_alpha_to_one=False,
                              prediction_type="v_prediction")  # fmt: skip
    body = unet(5, use_linear_projection=True, attention_head_dim=(2, 4, 4))
    return StableDiffusionPipeline(
        vae=vae(4), unet=body, text_encoder=clip(seed=6, hidden_act="gelu"),
        tokenizer=clip_tokenizer(folder, "!"), scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl(folder: Path) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
                                       timestep_spacing="leading", steps_offset=1)  # fmt: skip
    body = unet(8, block_out_channels=(32, 64), layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(2, 4),
                transformer_layers_per_block=(1, 2), use_linear_projection=True, cross_attention_dim=56,
                addition_embed_type="text_time", addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=72)  # fmt: skip
    second = clip("CLIPTextModelWithProjection", 9, hidden_size=24, hidden_act="gelu")
    return StableDiffusionXLPipeline(
        vae=vae(7), unet=body, text_encoder=clip(seed=10), text_encoder_2=second,
        tokenizer=clip_tokenizer(folder / "1"), tokenizer_2=clip_tokenizer(folder / "2", "!"),
        scheduler=scheduler,
    )  # fmt: skip


def sd3(folder: Path, *, with_t5: bool = True, newer: bool = True) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    more = {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)} if newer else {}
    body = seeded(
        SD3Transformer2DModel(sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=3,
                              attention_head_dim=8, num_attention_heads=4, joint_attention_dim=56,
                              caption_projection_dim=32, pooled_projection_dim=48, pos_embed_max_size=24,
                              **more), 11)  # fmt: skip
    decoder = vae(
        12, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609
    )
    projected = "CLIPTextModelWithProjection"
    return StableDiffusion3Pipeline(
        transformer=body, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=decoder,
        text_encoder=clip(projected, 13), tokenizer=clip_tokenizer(folder / "1"),
        text_encoder_2=clip(projected, 14, hidden_size=24, hidden_act="gelu"),
        tokenizer_2=clip_tokenizer(folder / "2", "!"),
        text_encoder_3=t5(15, d_model=56) if with_t5 else None,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    )  # fmt: skip


def flux(folder: Path, *, dev: bool = True) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    body = seeded(
        FluxTransformer2DModel(in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=16,
                               num_attention_heads=2, joint_attention_dim=24, pooled_projection_dim=32,
                               guidance_embeds=dev, axes_dims_rope=(4, 6, 6)), 16)  # fmt: skip
    decoder = vae(
        17, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        shift=3.0 if dev else 1.0, use_dynamic_shifting=dev, base_shift=0.5, max_shift=1.15,
        base_image_seq_len=256, max_image_seq_len=4096)  # fmt: skip
    return FluxPipeline(
        scheduler=scheduler, vae=decoder, text_encoder=clip(seed=18), tokenizer=clip_tokenizer(folder),
        text_encoder_2=t5(19), tokenizer_2=t5_tokenizer(), transformer=body,
    )  # fmt: skip


PIPELINES = {"sd1": sd1, "sd2": sd2, "sdxl": sdxl, "sd3": sd3, "flux": flux}


def saved(name: str, folder: Path) -> Path:
    """The folder that diffusers writes of a pipeline, within `folder`."""
    PIPELINES[name](folder / "parts").save_pretrained(folder / "model")
    return folder / "model"
