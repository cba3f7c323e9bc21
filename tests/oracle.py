"""What tests of networks against another library share: random weights and configurations, distance."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-5


def fill(network: nn.Module, seed: int, scale: float = 0.08) -> None:
    """Every parameter anew, so that nothing that starts at zero hides a wrong wire."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(scale * torch.randn(p.shape, generator=g))
            if "norm" in name and name.endswith("weight"):
                p.add_(1)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def off(ours: Tensor, theirs: Tensor, least: float = 0.0) -> float:
    """Largest difference, relative to the largest value, or to `least` where all are smaller."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max().clamp_min(least))


def near(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    assert off(ours, theirs) <= tolerance


def same_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    wanted = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values())
    for name, gradient in wanted.items():
        # Gradients that are zero but for rounding have no scale of their own.
        scale = max(float(gradient.abs().max()), 1e-3 * largest)
        assert float((found[name] - gradient).abs().max()) <= TOLERANCE * scale, name


def unet_config(seed: int) -> dict[str, Any]:
    """A small configuration of diffusers' UNet2DConditionModel, drawn from all that is supported."""
    r = random.Random(seed)
    levels = r.choice([2, 3])
    groups = r.choice([4, 8])
    widths = [groups * r.choice([2, 4, 6]) * 2 for _ in range(levels)]
    down = [r.choice(["DownBlock2D", "CrossAttnDownBlock2D"]) for _ in range(levels)]
    up = [r.choice(["UpBlock2D", "CrossAttnUpBlock2D"]) for _ in range(levels)]
    layers = r.choice([1, 2, [r.choice([1, 2]) for _ in range(levels)]])
    each = layers if isinstance(layers, list) else [layers] * levels
    config: dict[str, Any] = {
        "in_channels": r.choice([4, 9, 8]),
        "out_channels": r.choice([4, 8]),
        "block_out_channels": widths,
        "norm_num_groups": groups,
        "down_block_types": down,
        "up_block_types": up,
        "mid_block_type": r.choice(["UNetMidBlock2DCrossAttn"] * 3 + ["UNetMidBlock2D", None]),
        "layers_per_block": layers,
        "attention_head_dim": r.choice([2, 4, [r.choice([1, 2, 4]) for _ in range(levels)]]),
        "cross_attention_dim": r.choice([24, 20]),
        "use_linear_projection": r.choice([True, False]),
        "only_cross_attention": r.choice([False, False, [r.random() < 0.5 for _ in range(levels)]]),
        "upcast_attention": r.choice([True, False]),
        "resnet_time_scale_shift": r.choice(["default", "default", "scale_shift"]),
        "act_fn": r.choice(["silu", "silu", "gelu", "mish", "relu"]),
        "norm_eps": r.choice([1e-5, 1e-4]),
        "freq_shift": r.choice([0, 1]),
        "flip_sin_to_cos": r.choice([True, False]),
        "center_input_sample": r.random() < 0.2,
        "conv_in_kernel": r.choice([3, 1, 5]),
        "conv_out_kernel": r.choice([3, 1]),
        "mid_block_scale_factor": r.choice([1, 1.4]),
        "time_cond_proj_dim": r.choice([None, 12]),
        "time_embedding_dim": r.choice([None, 40]),
        "time_embedding_act_fn": r.choice([None, "silu"]),
        "timestep_post_act": r.choice([None, "silu"]),
        "class_embed_type": r.choice([None, "timestep", "projection", "simple_projection"]),
        "encoder_hid_dim": r.choice([None, None, 28]),
    }
    if config["class_embed_type"] is None:
        config["num_class_embeds"] = r.choice([None, 5])
    config["class_embeddings_concat"] = r.random() < 0.3 and _has_class(config)
    if config["class_embed_type"] in ("projection", "simple_projection"):
        config["projection_class_embeddings_input_dim"] = 30
    elif not config["class_embeddings_concat"] and r.random() < 0.5:
        vector = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64}
        config |= {"addition_embed_type": "text_time", **vector}
    kind = r.choice(["one", "levels", "layers"])
    if kind == "layers":
        config["transformer_layers_per_block"] = [[r.choice([1, 2]) for _ in range(n)] for n in each]
        config["reverse_transformer_layers_per_block"] = [
            [r.choice([1, 2]) for _ in range(n + 1)] for n in each[::-1]
        ]
        # The middle takes the lowest level's depths and has one transformer, so that level has one layer.
        config["transformer_layers_per_block"][-1] = r.choice([1, 2])
    else:
        config["transformer_layers_per_block"] = (
            2 if kind == "one" else [r.choice([1, 2]) for _ in range(levels)]
        )
    return config


def _has_class(config: dict[str, Any]) -> bool:
    return config["class_embed_type"] is not None or config["num_class_embeds"] is not None


def vae_config(seed: int) -> dict[str, Any]:
    """A small configuration of diffusers' AutoencoderKL."""
    r = random.Random(seed)
    levels, groups = r.choice([1, 2, 3]), r.choice([4, 8])
    quant = r.random() < 0.5
    return {
        "block_out_channels": [groups * r.choice([2, 3, 4]) for _ in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": r.choice([1, 2]),
        "latent_channels": r.choice([4, 16]),
        "norm_num_groups": groups,
        "act_fn": r.choice(["silu", "silu", "gelu"]),
        "use_quant_conv": quant,
        "use_post_quant_conv": quant,
        "mid_block_add_attention": r.random() < 0.8,
    }
