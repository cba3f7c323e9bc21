"""The autoencoder of latent diffusion as single files hold it (Rombach et al. 2022, and everyone since)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pictura.formats.parts import Config, Shapes, count
from pictura.formats.rules import Rule, named

__all__ = ["vae", "vae_config"]

_ENDS = {"conv_in": "conv_in", "conv_out": "conv_out", "norm_out": "conv_norm_out"}
_RESNET = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2",
           "nin_shortcut": "conv_shortcut"}  # fmt: skip
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


def vae(config: Config) -> Iterator[Rule]:
    """Encoder and decoder; the decoder's levels are numbered from the finest here, from the coarsest
    there."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    yield from named({name: name for name in ("quant_conv", "post_quant_conv")})
    for side, down, more in (("encoder", True, 0), ("decoder", False, 1)):
        theirs, ours = f"{side}.{'down' if down else 'up'}", f"{side}.{'down' if down else 'up'}_blocks"
        yield from named(_ENDS, theirs=side, ours=side)
        for level in range(levels):
            mine = f"{ours}.{level if down else levels - 1 - level}"
            for layer in range(layers + more):
                yield from named(
                    _RESNET, theirs=f"{theirs}.{level}.block.{layer}", ours=f"{mine}.resnets.{layer}"
                )
            kind = "downsample" if down else "upsample"
            yield Rule(f"{theirs}.{level}.{kind}.conv", (f"{mine}.{kind}rs.0.conv",))
        middle = f"{side}.mid_block"
        for half in (0, 1):
            yield from named(_RESNET, theirs=f"{side}.mid.block_{half + 1}", ours=f"{middle}.resnets.{half}")
        attention = f"{middle}.attentions.0"
        yield Rule(f"{side}.mid.attn_1.norm", (f"{attention}.group_norm",))
        for one, other in _ATTENTION.items():
            yield Rule(f"{side}.mid.attn_1.{one}", (f"{attention}.{other}",), "pointwise")


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """All but the factors of the latents, which no tensor tells."""
    levels = count(shapes, "encoder.down")
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": [
            shapes[f"encoder.down.{level}.block.0.conv1.weight"][0] for level in range(levels)
        ],
        "layers_per_block": count(shapes, "encoder.down.0.block"),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "act_fn": "silu",
        "norm_num_groups": 32,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }
