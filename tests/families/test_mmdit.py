"""The transformers of SD3 and FLUX against diffusers': outputs and gradients, any tiny configuration."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracle import normal, off
from pictura.errors import ParameterError
from pictura.families.flux.model import FluxTransformer, pack, positions, unpack
from pictura.families.stable_diffusion_3.model import MMDiT

diffusers = pytest.importorskip("diffusers")


def sd3_config(seed: int) -> dict[str, Any]:
    """Odd seeds are like 3.5 (normalised queries and keys), some of those like 3.5 medium."""
    rng = random.Random(seed)
    heads, size, layers = rng.randint(2, 4), 4 * rng.randint(2, 4), rng.randint(2, 4)
    return {
        "sample_size": rng.choice([16, 24, 32]), "patch_size": 2, "in_channels": rng.choice([4, 16]),
        "out_channels": rng.choice([4, 16]), "num_layers": layers, "attention_head_dim": size,
        "num_attention_heads": heads, "joint_attention_dim": rng.randint(20, 40),
        "caption_projection_dim": heads * size, "pooled_projection_dim": rng.randint(10, 30),
        "pos_embed_max_size": rng.randint(12, 24), "qk_norm": "rms_norm" if seed % 2 else None,
        "dual_attention_layers": tuple(range(rng.randint(1, layers))) if seed % 4 == 1 else (),
    }  # fmt: skip


def flux_config(seed: int) -> dict[str, Any]:
    """Odd seeds are like dev, even ones like schnell."""
    rng = random.Random(seed)
    axes = [2 * rng.randint(1, 4) for _ in range(3)]
    return {
        "in_channels": 4 * rng.randint(2, 5), "num_layers": rng.randint(1, 3),
        "num_single_layers": rng.randint(1, 4), "attention_head_dim": sum(axes),
        "num_attention_heads": rng.randint(2, 4), "joint_attention_dim": rng.randint(20, 40),
        "pooled_projection_dim": rng.randint(10, 30), "guidance_embeds": bool(seed % 2),
        "axes_dims_rope": axes,
    }  # fmt: skip


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """Every weight anew: a zero where a library starts with zeros would hide what it is multiplied with."""
    rng = torch.Generator().manual_seed(seed)
    for module in network.modules():
        for parameter in module.parameters(recurse=False):
            around = float("RMSNorm" in type(module).__name__)
            parameter.data = around + 0.1 * torch.randn(parameter.shape, generator=rng)
    return network.eval()


def twins(ours: type[nn.Module], theirs: str, config: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """Our network and the library's, with equal weights."""
    other = randomised(getattr(diffusers, theirs)(**config), seed)
    network = ours(config)
    network.load_state_dict(other.state_dict(), strict=True)
    return network.eval(), other


def same(ours: nn.Module, theirs: nn.Module, one: Tensor, other: Tensor) -> None:
    assert other.std() > 0.01
    assert off(one, other) < 1e-5
    one.square().mean().backward()
    other.square().mean().backward()
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert all(gradient is not None for gradient in wanted.values())
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - wanted[name]).abs().max() < 1e-5 * largest, name


@pytest.mark.parametrize("seed", range(5))
def test_mmdit(seed: int) -> None:
    config = sd3_config(seed)
    ours, theirs = twins(MMDiT, "SD3Transformer2DModel", config, seed)
    x, time = normal(1, 2, config["in_channels"], 12, 8), torch.tensor([713.5, 8.929])
    context = normal(2, 2, 11, config["joint_attention_dim"])
    pooled = normal(3, 2, config["pooled_projection_dim"])
    other = theirs(x, context, pooled, time, return_dict=False)[0]
    same(ours, theirs, ours(x, time, context, pooled), other)


@pytest.mark.parametrize("seed", range(2))
def test_mmdit_table_of_positions(seed: int) -> None:
    config = sd3_config(seed)
    theirs = diffusers.SD3Transformer2DModel(**config).pos_embed.pos_embed
    assert off(MMDiT(config).pos_embed.pos_embed, theirs) < 1e-6


def test_mmdit_residuals_and_skipped_blocks() -> None:
    config = sd3_config(3) | {"num_layers": 4}
    ours, theirs = twins(MMDiT, "SD3Transformer2DModel", config, 3)
    x, time = normal(1, 1, config["in_channels"], 6, 10), torch.tensor([400.0])
    context = normal(2, 1, 5, config["joint_attention_dim"])
    pooled = normal(3, 1, config["pooled_projection_dim"])
    extra = [normal(4 + i, 1, 15, config["caption_projection_dim"]) for i in range(2)]
    with torch.no_grad():
        plain = theirs(x, context, pooled, time, return_dict=False)[0]
        other = theirs(
            x, context, pooled, time, block_controlnet_hidden_states=extra, skip_layers=[1], return_dict=False
        )[0]
        assert off(plain, other) > 1e-2
        assert off(ours(x, time, context, pooled, residuals=extra, skip=[1]), other) < 1e-5


def test_mmdit_has_no_positions_for_large_pictures() -> None:
    config = sd3_config(0)
    side = 2 * config["pos_embed_max_size"] + 2
    arguments = normal(2, 1, 5, config["joint_attention_dim"]), normal(3, 1, config["pooled_projection_dim"])
    with pytest.raises(ParameterError, match="choose a smaller size"):
        MMDiT(config)(normal(1, 1, config["in_channels"], 4, side), torch.tensor([1.0]), *arguments)


def flux_inputs(config: dict[str, Any], b: int) -> tuple[Tensor, ...]:
    x, time = normal(1, b, config["in_channels"] // 4, 6, 10), torch.tensor([0.71, 0.02])[:b]
    context = normal(2, b, 11, config["joint_attention_dim"])
    return x, time, context, normal(3, b, config["pooled_projection_dim"])


@pytest.mark.parametrize("seed", range(5))
def test_flux(seed: int) -> None:
    config = flux_config(seed)
    ours, theirs = twins(FluxTransformer, "FluxTransformer2DModel", config, seed)
    x, time, context, pooled = flux_inputs(config, 2)
    guidance = torch.tensor([3.5, 1.25]) if config["guidance_embeds"] else None
    ids = positions(11, 3, 5)
    other = theirs(
        pack(x),
        context,
        pooled,
        time,
        img_ids=ids[11:],
        txt_ids=ids[:11],
        guidance=guidance,
        return_dict=False,
    )[0]
    same(ours, theirs, ours(x, time, context, pooled, guidance), unpack(other, 3, 5))


def test_flux_residuals() -> None:
    config = flux_config(2) | {"num_layers": 3, "num_single_layers": 4}
    ours, theirs = twins(FluxTransformer, "FluxTransformer2DModel", config, 2)
    x, time, context, pooled = flux_inputs(config, 1)
    width, ids = config["num_attention_heads"] * config["attention_head_dim"], positions(11, 3, 5)
    joint, single = [normal(4, 1, 15, width), normal(5, 1, 15, width)], [normal(6, 1, 15, width)]
    with torch.no_grad():
        other = theirs(
            pack(x), context, pooled, time, img_ids=ids[11:], txt_ids=ids[:11],
            controlnet_block_samples=joint, controlnet_single_block_samples=single, return_dict=False,
        )[0]  # fmt: skip
        answer = ours(x, time, context, pooled, residuals=joint, single_residuals=single)
        assert off(answer, ours(x, time, context, pooled)) > 1e-2
        assert off(answer, unpack(other, 3, 5)) < 1e-5


def test_packing_and_positions_are_the_library_s() -> None:
    pipeline = diffusers.FluxPipeline
    x = normal(1, 2, 3, 6, 10)
    assert torch.equal(pack(x), pipeline._pack_latents(x, 2, 3, 6, 10))
    assert torch.equal(unpack(pack(x), 3, 5), x)
    theirs = pipeline._prepare_latent_image_ids(1, 3, 5, torch.device("cpu"), torch.float32)
    assert torch.equal(positions(4, 3, 5)[4:].float(), theirs)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_masked_text_is_not_seen(name: str) -> None:
    """What a mask hides from the picture and from all other text may as well be anything."""
    if name == "sd3":
        config = sd3_config(1)
        network = randomised(MMDiT(config), 0)
        x, time = normal(1, 1, config["in_channels"], 6, 10), torch.tensor([400.0])
        context, pooled = (
            normal(2, 1, 11, config["joint_attention_dim"]),
            normal(3, 1, config["pooled_projection_dim"]),
        )
    else:
        config = flux_config(0)
        network = randomised(FluxTransformer(config), 0)
        x, time, context, pooled = flux_inputs(config, 1)
    mask = torch.ones(1, 1, 26, 26, dtype=torch.bool)
    mask[..., 7:11] = False
    with torch.no_grad():
        answer = network(x, time, context, pooled, mask=mask)
        context[:, 7:] += 3
        assert off(network(x, time, context, pooled, mask=mask), answer) < 1e-5
        assert off(network(x, time, context, pooled), answer) > 1e-3
