"""Stable Diffusion 3 as KerasHub publishes it: its configuration and its names in ours. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pictura.errors import CheckpointError, shown
from pictura.formats import keras
from pictura.formats.layout import Layout
from pictura.formats.rules import Rule, named, table, translate
from pictura.formats.safetensors import Entry

__all__ = ["read"]

CLASS = "keras_hub>StableDiffusion3Backbone"
_ENDS = {
    "patch_embedding.patch_embedding": "pos_embed.proj",
    "adjustable_position_embedding": "pos_embed.pos_embed",
    "dense": "context_embedder",
    "dense_1": "proj_out",
    "mlp.dense1": "time_text_embed.text_embedder.linear_1",
    "mlp.dense2": "time_text_embed.text_embedder.linear_2",
    "timestep_embedding.mlp.dense1": "time_text_embed.timestep_embedder.linear_1",
    "timestep_embedding.mlp.dense2": "time_text_embed.timestep_embedder.linear_2",
}
_PICTURE = {
    "ada_layer_norm.dense": "norm1.linear",
    "attention_proj": "attn.to_out.0",
    "q_norm": "attn.norm_q",
    "k_norm": "attn.norm_k",
    "attention_proj2": "attn2.to_out.0",
    "q_norm2": "attn2.norm_q",
    "k_norm2": "attn2.norm_k",
    "mlp.dense1": "ff.net.0.proj",
    "mlp.dense2": "ff.net.2",
}
_CONTEXT = {
    "attention_proj": "attn.to_add_out",
    "q_norm": "attn.norm_added_q",
    "k_norm": "attn.norm_added_k",
    "mlp.dense1": "ff_context.net.0.proj",
    "mlp.dense2": "ff_context.net.2",
}
_CLIP = {
    "token_and_position_embedding.token_embedding": "embeddings.token_embedding",
    "token_and_position_embedding.position_embedding": "embeddings.position_embedding",
    "layer_normalization": "final_layer_norm",
}
_CLIP_LAYER = {
    "attention.query_dense": "self_attn.q_proj",
    "attention.key_dense": "self_attn.k_proj",
    "attention.value_dense": "self_attn.v_proj",
    "attention.output_dense": "self_attn.out_proj",
    "layer_norm_1": "layer_norm1",
    "layer_norm_2": "layer_norm2",
    "dense_1": "mlp.fc1",
    "dense_2": "mlp.fc2",
}
_VAE_ENDS = {"input_projection": "conv_in", "output_projection": "conv_out", "output_norm": "conv_norm_out"}
_RESNET = {"residual_projection": "conv_shortcut"} | {
    name: name for name in ("norm1", "conv1", "norm2", "conv2")
}
_VAE_ATTENTION = {"query_conv2d": "to_q", "key_conv2d": "to_k", "value_conv2d": "to_v",
                  "output_conv2d": "to_out.0"}  # fmt: skip


def read(layout: Layout) -> tuple[dict[str, Any], dict[str, Entry]] | None:
    """(configurations by component, tensors by our names) of a KerasHub preset; None for another model's.

    CheckpointError where they do not belong together.
    """
    if layout.index.get("registered_name") != CLASS:
        return None
    try:
        configs = _configs(layout.index["config"])
        rules = list(_rules(configs))
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError, IndexError) as error:
        reason = f"{type(error).__name__}: {shown(error.args[0] if error.args else '')}"
        raise CheckpointError(
            f"config.json in {str(layout.path)!r} describes no Stable Diffusion 3 ({reason}); get it again"
        ) from error
    entries = translate(keras.weights(layout.path, root=layout.root), table(rules))
    positions = "transformer.pos_embed.pos_embed.weight"  # a table, and no layer's weight, in our names
    if positions in entries:
        entry = entries.pop(positions)
        entries[positions.removesuffix(".weight")] = entry._replace(shape=(1, *entry.shape))
    return configs, entries


def _configs(said: Mapping[str, Any]) -> dict[str, Any]:
    clips = {"text_encoder": said["clip_l"]["config"], "text_encoder_2": said["clip_g"]["config"]}
    width, heads = int(said["mmdit_hidden_dim"]), int(said["mmdit_num_heads"])
    vae = said["vae"]["config"]
    levels, each = list(vae["encoder_num_filters"]), list(vae["encoder_num_blocks"])
    if said["t5"] is not None:
        raise ValueError("it has a T5, which is read from folders of diffusers only")
    if each != each[:1] * len(levels) or vae["decoder_num_blocks"] != [each[0] + 1] * len(levels):
        raise ValueError("the levels of its autoencoder have unlike numbers of blocks")
    if vae["decoder_num_filters"] != levels[::-1]:
        raise ValueError("its decoder is no mirror of its encoder")
    return {
        "transformer": {
            "_class_name": "SD3Transformer2DModel",
            "sample_size": int(said["image_shape"][0]) // 2 ** (len(levels) - 1),
            "patch_size": said["mmdit_patch_size"],
            "in_channels": said["latent_channels"],
            "out_channels": said["latent_channels"],
            "num_layers": int(said["mmdit_num_layers"]),
            "attention_head_dim": width // heads,
            "num_attention_heads": heads,
            "joint_attention_dim": 4096,
            "caption_projection_dim": width,
            "pooled_projection_dim": sum(int(clip["hidden_dim"]) for clip in clips.values()),
            "pos_embed_max_size": said["mmdit_position_size"],
            "qk_norm": said["mmdit_qk_norm"],
            "dual_attention_layers": list(said["mmdit_dual_attention_indices"] or ()),
        },
        **{name: _clip(clip) for name, clip in clips.items()},
        "vae": {
            "_class_name": "AutoencoderKL",
            "in_channels": vae["input_channels"],
            "out_channels": vae["output_channels"],
            "latent_channels": said["latent_channels"],
            "block_out_channels": levels,
            "layers_per_block": each[0],
            "down_block_types": ["DownEncoderBlock2D"] * len(levels),
            "up_block_types": ["UpDecoderBlock2D"] * len(levels),
            "norm_num_groups": 32,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "scaling_factor": vae["scale"],
            "shift_factor": vae["shift"],
        },
        "scheduler": {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": said["num_train_timesteps"],
            "shift": said["shift"],
        },
    }


def _clip(said: Mapping[str, Any]) -> dict[str, Any]:
    """A text ends at its largest token, which is the last of CLIP's vocabulary."""
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "vocab_size": said["vocabulary_size"],
        "hidden_size": said["hidden_dim"],
        "intermediate_size": said["intermediate_dim"],
        "num_hidden_layers": int(said["num_layers"]),
        "num_attention_heads": said["num_heads"],
        "max_position_embeddings": said["max_sequence_length"],
        "hidden_act": said["intermediate_activation"],
        "layer_norm_eps": 1e-5,
        "projection_dim": said["hidden_dim"],
        "eos_token_id": int(said["vocabulary_size"]) - 1,
    }


def _rules(configs: Mapping[str, Any]) -> Iterator[Rule]:
    yield from _transformer(configs["transformer"])
    for number, component in enumerate(("text_encoder", "text_encoder_2")):
        yield from _text(configs[component], component, number)
    yield from _vae(configs["vae"])


def _transformer(config: Mapping[str, Any]) -> Iterator[Rule]:
    """As in the original, norms that no gate follows have shift before scale."""
    yield from named(_ENDS, theirs="mm_di_t", ours="transformer")
    yield Rule("mm_di_t.adaptive_layer_normalization.dense", ("transformer.norm_out.linear",), "swap")
    for layer in range(config["num_layers"]):
        theirs, ours = (
            f"mm_di_t.{_numbered('mm_di_t_block', layer)}",
            f"transformer.transformer_blocks.{layer}",
        )
        yield from named(_PICTURE, theirs=f"{theirs}.x_block", ours=ours)
        yield from named(_CONTEXT, theirs=f"{theirs}.context_block", ours=ours)
        last = layer == config["num_layers"] - 1
        norm = f"{theirs}.context_block.ada_layer_norm.dense"
        yield Rule(norm, (f"{ours}.norm1_context.linear",), "swap" if last else "")
        for name, parts in (
            ("x_block.attention_qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
            ("x_block.attention_qkv2", ("attn2.to_q", "attn2.to_k", "attn2.to_v")),
            ("context_block.attention_qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
        ):
            yield Rule(f"{theirs}.{name}", tuple(f"{ours}.{part}" for part in parts))


def _text(config: Mapping[str, Any], component: str, number: int) -> Iterator[Rule]:
    theirs, ours = _numbered("clip_text_encoder", number), f"{component}.text_model"
    yield from named(_CLIP, theirs=theirs, ours=ours)
    yield Rule(f"{_numbered('clip_projection', number)}.dense", (f"{component}.text_projection",))
    for layer in range(config["num_hidden_layers"]):
        place = f"{theirs}.{_numbered('clip_encoder_layer', layer)}"
        yield from named(_CLIP_LAYER, theirs=place, ours=f"{ours}.encoder.layers.{layer}")


def _vae(config: Mapping[str, Any]) -> Iterator[Rule]:
    """Residual blocks are numbered through all levels; each level but the last changes the size."""
    levels = len(config["block_out_channels"])
    for side, way in (("encoder", "down"), ("decoder", "up")):
        theirs, ours = f"vae_{side}", f"vae.{side}"
        yield from named(_VAE_ENDS, theirs=theirs, ours=ours)
        each = config["layers_per_block"] + (side == "decoder")
        for at in range(levels * each):
            block = f"{theirs}.blocks.{_numbered('res_net_block', at)}"
            yield from named(
                _RESNET, theirs=block, ours=f"{ours}.{way}_blocks.{at // each}.resnets.{at % each}"
            )
        for at in range(levels - 1):
            change = f"{theirs}.{way}samples.{_numbered('conv2d', at)}"
            yield Rule(change, (f"{ours}.{way}_blocks.{at}.{way}samplers.0.conv",))
        for half in (0, 1):
            yield from named(
                _RESNET, theirs=f"{theirs}.mid_block_{half}", ours=f"{ours}.mid_block.resnets.{half}"
            )
        attention = f"{ours}.mid_block.attentions.0"
        yield Rule(f"{theirs}.mid_attention.group_norm", (f"{attention}.group_norm",))
        for name, part in _VAE_ATTENTION.items():
            yield Rule(f"{theirs}.mid_attention.{name}", (f"{attention}.{part}",), "pointwise")


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name
