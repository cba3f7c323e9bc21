"""Stable Diffusion 3 and 3.5 in the files of others: names, shapes, recognition. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Any

from pictura.formats.autoencoder import vae, vae_config
from pictura.formats.encoders import clip, clip_config, t5, t5_config
from pictura.formats.layout import Layout
from pictura.formats.parts import Config, Part, Shapes, count, find
from pictura.formats.recipe import Gathered, Plan, Recipe, follow, gather, of_class
from pictura.formats.rules import Rule, named

from . import keras

FAMILY = "stable_diffusion_3"
_ENDS = {
    "pos_embed": "pos_embed.pos_embed",
    "x_embedder.proj": "pos_embed.proj",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "context_embedder": "context_embedder",
    "final_layer.linear": "proj_out",
}
_PICTURE = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.ln_q": "attn.norm_q",
    "attn.ln_k": "attn.norm_k",
    "attn.proj": "attn.to_out.0",
    "attn2.ln_q": "attn2.norm_q",
    "attn2.ln_k": "attn2.norm_k",
    "attn2.proj": "attn2.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_CONTEXT = {
    "attn.ln_q": "attn.norm_added_q",
    "attn.ln_k": "attn.norm_added_k",
    "attn.proj": "attn.to_add_out",
    "mlp.fc1": "ff_context.net.0.proj",
    "mlp.fc2": "ff_context.net.2",
}
_HEAD = 64  # the width of an attention head in every published model


def transformer(config: Config) -> Iterator[Rule]:
    """Where a norm is followed by no gate, the original has shift before scale, and diffusers scale before
    shift: at the end, and in the last block's text stream."""
    yield from named(_ENDS)
    yield Rule("final_layer.adaLN_modulation.1", ("norm_out.linear",), "swap")
    layers = config["num_layers"]
    for layer in range(layers):
        picture, context = f"joint_blocks.{layer}.x_block", f"joint_blocks.{layer}.context_block"
        ours = f"transformer_blocks.{layer}"
        yield from named(_PICTURE, theirs=picture, ours=ours)
        yield from named(_CONTEXT, theirs=context, ours=ours)
        for attention in ("attn", "attn2"):
            yield from _qkv(f"{picture}.{attention}", f"{ours}.{attention}", "to_q", "to_k", "to_v")
        yield from _qkv(f"{context}.attn", f"{ours}.attn", "add_q_proj", "add_k_proj", "add_v_proj")
        form = "swap" if layer == layers - 1 else ""
        yield Rule(f"{context}.adaLN_modulation.1", (f"{ours}.norm1_context.linear",), form)


def _qkv(theirs: str, ours: str, *parts: str) -> Iterator[Rule]:
    for kind in ("weight", "bias"):
        yield Rule(f"{theirs}.qkv.{kind}", tuple(f"{ours}.{part}.{kind}" for part in parts))


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    """The published architectures, as their shapes tell them."""
    width, channels, patch, _ = shapes["x_embedder.proj.weight"]
    layers = count(shapes, "joint_blocks")
    twice = [n for n in range(layers) if f"joint_blocks.{n}.x_block.attn2.qkv.weight" in shapes]
    normed = "joint_blocks.0.x_block.attn.ln_q.weight" in shapes
    return {
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,
        "patch_size": patch,
        "in_channels": channels,
        "out_channels": shapes["final_layer.linear.weight"][0] // patch**2,
        "num_layers": layers,
        "attention_head_dim": _HEAD,
        "num_attention_heads": width // _HEAD,
        "joint_attention_dim": shapes["context_embedder.weight"][1],
        "caption_projection_dim": shapes["context_embedder.weight"][0],
        "pooled_projection_dim": shapes["y_embedder.mlp.0.weight"][1],
        "pos_embed_max_size": isqrt(shapes["pos_embed"][1]),
        "qk_norm": "rms_norm" if normed else None,
        "dual_attention_layers": twice,
    }


def _of_keras(layout: Layout, extra: Layout | None) -> Recipe | None:
    """A KerasHub preset; only tokenizers are taken from `extra`."""
    found = keras.read(layout)
    if found is None:
        return None
    configs, entries = found
    layouts = tuple(one for one in (layout, extra) if one is not None)
    gathered = Gathered(configs=configs, entries=entries, layouts=layouts)
    return follow(FAMILY, plan(configs), gathered)


def _clip(component: str, prefix: str, width: int) -> Part:
    return Part(
        component=component,
        marker="text_model.embeddings.token_embedding.weight",
        prefixes=(prefix, ""),
        config=clip_config,
        rules=clip,
        width=width,
        ignored=("logit_scale", "text_model.embeddings.position_ids"),
    )


TRANSFORMER = Part(
    component="transformer",
    marker="joint_blocks.0.x_block.attn.qkv.weight",
    prefixes=("model.diffusion_model.", ""),
    config=transformer_config,
    rules=transformer,
)
PARTS = (
    TRANSFORMER,
    Part(
        component="vae",
        marker="decoder.up.0.block.0.conv1.weight",
        prefixes=("first_stage_model.", "vae.", ""),
        config=vae_config,
        rules=vae,
    ),
    _clip("text_encoder", "text_encoders.clip_l.transformer.", 768),
    _clip("text_encoder_2", "text_encoders.clip_g.transformer.", 1280),
    Part(
        component="text_encoder_3",
        marker="encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        prefixes=("text_encoders.t5xxl.transformer.", ""),
        config=t5_config,
        rules=t5,
        ignored=("logit_scale",),
    ),
)
_SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


def version(config: Config) -> str:
    """ "3" or "3.5", which norms its queries and keys."""
    return "3.5" if config.get("qk_norm") else "3"


def plan(configs: Config) -> Plan:
    """What belongs to a model with these configurations by component."""
    tokenizers = {"tokenizer": "clip", "tokenizer_2": "open_clip"}
    return Plan(
        version=version(configs.get("transformer", {})),
        pipeline="StableDiffusion3Pipeline",
        parts=PARTS,
        tokenizers=tokenizers | ({"tokenizer_3": "t5"} if "text_encoder_3" in configs else {}),
        required=("transformer", "vae", "text_encoder", "text_encoder_2"),
        optional=("text_encoder_3",),
    )


def recognise(layout: Layout, extra: Layout | None = None) -> Recipe | None:
    """How to read `layout` as this family, what it lacks taken from `extra`; None where it is none of
    ours."""
    if layout.kind == "keras":
        return _of_keras(layout, extra)
    single = layout.kind == "files" and find(layout.files, TRANSFORMER) is not None
    if not single and not of_class(layout, "transformer", "SD3Transformer2DModel"):
        return None
    gathered = gather(layout, extra, PARTS)
    configs = gathered.configs
    if "vae" in configs:
        configs["vae"] = {"scaling_factor": 1.5305, "shift_factor": 0.0609, **configs["vae"]}
    configs.setdefault("scheduler", dict(_SCHEDULER))
    return follow(FAMILY, plan(configs), gathered)
