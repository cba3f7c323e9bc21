"""FLUX.1 in the files of others: names, shapes, recognition. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pictura.formats.autoencoder import vae, vae_config
from pictura.formats.encoders import clip, clip_config, t5, t5_config
from pictura.formats.layout import Layout
from pictura.formats.parts import Config, Part, Shapes, count, find
from pictura.formats.recipe import Plan, Recipe, follow, gather, of_class
from pictura.formats.rules import Rule, named

FAMILY = "flux"
_EMBEDDERS = {
    "time_in": "timestep_embedder",
    "guidance_in": "guidance_embedder",
    "vector_in": "text_embedder",
}
_ENDS = {"img_in": "x_embedder", "txt_in": "context_embedder", "final_layer.linear": "proj_out"}
_DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.norm.query_norm.scale": "attn.norm_q.weight",
    "img_attn.norm.key_norm.scale": "attn.norm_k.weight",
    "txt_attn.norm.query_norm.scale": "attn.norm_added_q.weight",
    "txt_attn.norm.key_norm.scale": "attn.norm_added_k.weight",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.proj": "attn.to_add_out",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
_SINGLE = {
    "modulation.lin": "norm.linear",
    "linear2": "proj_out",
    "norm.query_norm.scale": "attn.norm_q.weight",
    "norm.key_norm.scale": "attn.norm_k.weight",
}
_QKV = ("attn.to_q", "attn.to_k", "attn.to_v")
_ADDED = ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")
_AXES = (16, 56, 56)  # how a head's 128 numbers are dealt out to the axes of its position
_HEAD = sum(_AXES)


def transformer(config: Config) -> Iterator[Rule]:
    """A single block's first matrix holds queries, keys, values and the mlp's four times wider input."""
    yield from named(_ENDS)
    yield Rule("final_layer.adaLN_modulation.1", ("norm_out.linear",), "swap")
    for theirs, ours in _EMBEDDERS.items():
        pair = {"in_layer": "linear_1", "out_layer": "linear_2"}
        yield from named(pair, theirs=theirs, ours=f"time_text_embed.{ours}")
    for layer in range(config["num_layers"]):
        theirs, ours = f"double_blocks.{layer}", f"transformer_blocks.{layer}"
        yield from named(_DOUBLE, theirs=theirs, ours=ours)
        yield from _split(f"{theirs}.img_attn.qkv", ours, _QKV)
        yield from _split(f"{theirs}.txt_attn.qkv", ours, _ADDED)
    for layer in range(config["num_single_layers"]):
        theirs, ours = f"single_blocks.{layer}", f"single_transformer_blocks.{layer}"
        yield from named(_SINGLE, theirs=theirs, ours=ours)
        yield from _split(f"{theirs}.linear1", ours, (*_QKV, "proj_mlp"), (1, 1, 1, 4))


def _split(theirs: str, ours: str, parts: tuple[str, ...], shares: tuple[int, ...] = ()) -> Iterator[Rule]:
    for kind in ("weight", "bias"):
        yield Rule(f"{theirs}.{kind}", tuple(f"{ours}.{part}.{kind}" for part in parts), "", shares)


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    """The published architectures, as their shapes tell them."""
    width, channels = shapes["img_in.weight"]
    return {
        "_class_name": "FluxTransformer2DModel",
        "patch_size": 1,
        "in_channels": channels,
        "out_channels": shapes["final_layer.linear.weight"][0],
        "num_layers": count(shapes, "double_blocks"),
        "num_single_layers": count(shapes, "single_blocks"),
        "attention_head_dim": _HEAD,
        "num_attention_heads": width // _HEAD,
        "joint_attention_dim": shapes["txt_in.weight"][1],
        "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
        "guidance_embeds": "guidance_in.in_layer.weight" in shapes,
        "axes_dims_rope": list(_AXES),
    }


TRANSFORMER = Part(
    component="transformer",
    marker="double_blocks.0.img_attn.qkv.weight",
    prefixes=("model.diffusion_model.", ""),
    config=transformer_config,
    rules=transformer,
)
PARTS = (
    TRANSFORMER,
    Part(
        component="vae",
        marker="decoder.up.0.block.0.conv1.weight",
        prefixes=("vae.", "first_stage_model.", ""),
        config=vae_config,
        rules=vae,
    ),
    Part(
        component="text_encoder",
        marker="text_model.embeddings.token_embedding.weight",
        prefixes=("text_encoders.clip_l.transformer.", ""),
        config=clip_config,
        rules=clip,
        ignored=("logit_scale", "text_model.embeddings.position_ids", "text_projection"),
    ),
    Part(
        component="text_encoder_2",
        marker="encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        prefixes=("text_encoders.t5xxl.transformer.", ""),
        config=t5_config,
        rules=t5,
        ignored=("logit_scale",),
    ),
)
_SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": 1000,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "base_shift": 0.5,
    "max_shift": 1.15,
}


def version(config: Config) -> str:
    """ "flux-dev", which is told the guidance, or "flux-schnell"."""
    return "flux-dev" if config.get("guidance_embeds") else "flux-schnell"


def plan(configs: Config) -> Plan:
    """What belongs to a model with these configurations by component."""
    return Plan(
        version=version(configs.get("transformer", {})),
        pipeline="FluxPipeline",
        parts=PARTS,
        tokenizers={"tokenizer": "clip", "tokenizer_2": "t5"},
        required=("transformer", "vae", "text_encoder", "text_encoder_2"),
    )


def recognise(layout: Layout, extra: Layout | None = None) -> Recipe | None:
    """How to read `layout` as this family, what it lacks taken from `extra`; None where it is none of
    ours."""
    single = layout.kind == "files" and find(layout.files, TRANSFORMER) is not None
    if not single and not of_class(layout, "transformer", "FluxTransformer2DModel"):
        return None
    gathered = gather(layout, extra, PARTS)
    configs = gathered.configs
    if "vae" in configs:
        configs["vae"] = {"scaling_factor": 0.3611, "shift_factor": 0.1159, **configs["vae"]}
    shifted = version(configs["transformer"]) == "flux-dev"
    default = {**_SCHEDULER, "shift": 3.0 if shifted else 1.0, "use_dynamic_shifting": shifted}
    configs.setdefault("scheduler", default)
    return follow(FAMILY, plan(configs), gathered)
