"""Text encoders as single files hold them: CLIP in OpenAI's and in OpenCLIP's names, and T5."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pictura.formats.parts import Config, Shapes, count
from pictura.formats.rules import Rule, named

__all__ = ["clip", "clip_config", "open_clip", "open_clip_config", "t5", "t5_config"]

_HEAD = 64  # the width of one attention head in every published CLIP
_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def clip(config: Config) -> Iterator[Rule]:
    """Names as transformers writes them, with and without "text_model."."""
    heads = ("embeddings", "encoder", "final_layer_norm")
    yield from named({head: f"text_model.{head}" for head in heads}, old=True)
    yield from named({name: name for name in ("text_projection", "text_model")})


def clip_config(shapes: Shapes) -> dict[str, Any]:
    """Of CLIP-L and its like; OpenCLIP's in these names are told by their width."""
    shapes = {name.removeprefix("text_model."): shape for name, shape in shapes.items()}
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    layers = count(shapes, "encoder.layers")
    hidden = shapes["encoder.layers.0.mlp.fc1.weight"][0]
    projection = shapes.get("text_projection.weight")
    positions = shapes["embeddings.position_embedding.weight"][0]
    return _clip(vocabulary, width, layers, hidden, positions, projection[0] if projection else None)


def open_clip(config: Config) -> Iterator[Rule]:
    """Names as OpenCLIP writes them."""
    text = {
        "positional_embedding": "embeddings.position_embedding.weight",
        "token_embedding": "embeddings.token_embedding",
        "ln_final": "final_layer_norm",
    }
    yield from named(text, ours="text_model")
    yield Rule("text_projection", ("text_projection.weight",), "transpose")
    for layer in range(config["num_hidden_layers"]):
        theirs, ours = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
        yield from named(_LAYER, theirs=theirs, ours=ours)
        for kind in ("weight", "bias"):
            names = tuple(f"{ours}.self_attn.{part}.{kind}" for part in _PROJECTIONS)
            yield Rule(f"{theirs}.attn.in_proj_{kind}", names)


def open_clip_config(shapes: Shapes) -> dict[str, Any]:
    """Of OpenCLIP-H and bigG."""
    vocabulary, width = shapes["token_embedding.weight"]
    layers = count(shapes, "transformer.resblocks")
    hidden = shapes["transformer.resblocks.0.mlp.c_fc.weight"][0]
    projection = shapes.get("text_projection")
    positions = shapes["positional_embedding"][0]
    return _clip(vocabulary, width, layers, hidden, positions, projection[1] if projection else None)


def t5(config: Config) -> Iterator[Rule]:
    """Names as transformers writes them; the table of words comes under one name or the other."""
    yield from named({"encoder.embed_tokens": "shared"}, old=True)
    yield from named({name: name for name in ("shared", "encoder")})


def t5_config(shapes: Shapes) -> dict[str, Any]:
    """Of the 1.1 encoders, gated; the first version's has one matrix less."""
    block = "encoder.block.0.layer"
    words = shapes.get("shared.weight") or shapes["encoder.embed_tokens.weight"]
    buckets, heads = shapes[f"{block}.0.SelfAttention.relative_attention_bias.weight"]
    gated = f"{block}.1.DenseReluDense.wi_0.weight"
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        "vocab_size": words[0],
        "d_model": words[1],
        "d_kv": shapes[f"{block}.0.SelfAttention.q.weight"][0] // heads,
        "d_ff": (shapes.get(gated) or shapes[f"{block}.1.DenseReluDense.wi.weight"])[0],
        "num_layers": count(shapes, "encoder.block"),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "gated-gelu" if gated in shapes else "relu",
    }


def _clip(
    vocabulary: int, width: int, layers: int, hidden: int, positions: int, projection: int | None
) -> dict[str, Any]:
    """OpenAI's CLIP-L, of width 768, was trained with the quick gelu; OpenCLIP's wider ones with the
    exact."""
    projected = projection is not None
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(width // _HEAD, 1),
        "max_position_embeddings": positions,
        "hidden_act": "quick_gelu" if width <= 768 else "gelu",
        "layer_norm_eps": 1e-5,
        "projection_dim": projection if projected else width,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    }
