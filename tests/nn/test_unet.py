"""The UNet against diffusers, on configurations drawn at random: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from oracle import TOLERANCE, fill, normal, off, same_gradients, unet_config
from pictura.errors import PresetError
from pictura.nn.attention import Attention
from pictura.nn.unet import UNet

diffusers = pytest.importorskip("diffusers")

SEEDS = range(16)
SD1 = {
    "block_out_channels": [16, 32],
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
    "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}


def pair(config: dict[str, Any], seed: int = 0) -> tuple[UNet, Any]:
    theirs = diffusers.UNet2DConditionModel(**config).eval()
    fill(theirs, seed)
    ours = UNet(dict(theirs.config)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


def inputs(config: dict[str, Any], seed: int, ours: UNet) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same for both, each in its own words. Sides that no level halves evenly."""
    x = normal(seed, 2, config["in_channels"], 11, 14)
    time = torch.tensor([3.0, 777.0])
    text = normal(seed + 1, 2, 9, config.get("encoder_hid_dim") or config["cross_attention_dim"])
    a: dict[str, Any] = {"sample": x, "time": time, "context": text}
    b: dict[str, Any] = {"sample": x, "timestep": time, "encoder_hidden_states": text}
    if config["time_cond_proj_dim"]:
        a["condition"] = b["timestep_cond"] = normal(seed + 2, 2, config["time_cond_proj_dim"])
    if config["class_embed_type"] in ("projection", "simple_projection"):
        a["labels"] = b["class_labels"] = normal(seed + 3, 2, 30)
    elif config["class_embed_type"] == "timestep" or config["num_class_embeds"]:
        a["labels"] = b["class_labels"] = torch.tensor([4, 1])
    if config.get("addition_embed_type"):
        pooled, ids = normal(seed + 4, 2, 16), torch.tensor([[512, 768, 3, 5, 640, 64], [8, 7, 6, 5, 4, 3]])
        a["added"] = ours.sizes(pooled, ids)
        b["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids}
    return a, b


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_diffusers(seed: int) -> None:
    config = unet_config(seed)
    ours, theirs = pair(config, seed)
    a, b = inputs(config, 10 * seed, ours)
    found, wanted = ours(**a), theirs(**b).sample
    assert off(found, wanted) <= TOLERANCE
    found.square().mean().backward()
    wanted.square().mean().backward()
    same_gradients(ours, theirs)


def test_the_random_configurations_differ_in_every_key() -> None:
    drawn = [unet_config(seed) for seed in SEEDS]
    for key in drawn[0]:
        assert len({str(config.get(key)) for config in drawn}) > 1, key


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_gradients_the_same(seed: int) -> None:
    """The ways that save memory are taken only then."""
    config = unet_config(seed)
    ours, _ = pair(config, seed)
    a, _ = inputs(config, seed, ours)
    with torch.no_grad():
        assert torch.equal(ours(**a), ours(**a))
        quiet = ours(**a)
    assert off(quiet, ours(**a)) <= 1e-6


def test_controls_and_adapters_equal_diffusers() -> None:
    ours, theirs = pair(SD1)
    x, time, text = normal(1, 2, 4, 12, 20), torch.tensor([5.0, 400.0]), normal(2, 2, 7, 12)
    net = diffusers.ControlNetModel.from_unet(theirs, conditioning_embedding_out_channels=(4, 8)).eval()
    fill(net, 3)
    down, mid = net(x, time, text, normal(4, 2, 3, 24, 40), return_dict=False)
    wanted = theirs(
        x, time, text, down_block_additional_residuals=down, mid_block_additional_residual=mid
    ).sample
    assert off(ours(x, time, text, residuals=(down, mid)), wanted) <= TOLERANCE

    levels = [normal(5, 2, 16, 12, 20), normal(6, 2, 32, 6, 10)]
    for extra in ([], [normal(7, 2, 32, 6, 10)]):
        adapter = [*levels, *extra]
        wanted = theirs(x, time, text, down_intrablock_additional_residuals=list(adapter)).sample
        assert off(ours(x, time, text, adapter=adapter), wanted) <= TOLERANCE


def test_attention_can_be_replaced() -> None:
    ours, theirs = pair(SD1)
    x, time, text = normal(1, 2, 4, 12, 20), torch.tensor([5.0, 400.0]), normal(2, 2, 7, 12)
    seen: dict[str, tuple[bool, tuple[int, int]]] = {}

    def attend(layer: Attention, h: Tensor, context: Tensor | None, size: tuple[int, int]) -> Tensor:
        seen[f"{layer.name}.processor"] = context is not None, size
        assert h.shape[1] == size[0] * size[1]
        q, k, v = layer.project(h, context)
        if context is None:
            return layer.finish(layer.mix(q, k, v))
        # Keys that are there twice change nothing.
        return layer.finish(layer.mix(q, torch.cat([k, k], 2), torch.cat([v, v], 2)))

    assert off(ours(x, time, text, attend=attend), ours(x, time, text)) <= TOLERANCE
    assert set(seen) == set(theirs.attn_processors)
    assert all(cross == name.endswith("attn2.processor") for name, (cross, _) in seen.items())
    assert seen["down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor"][1] == (12, 20)


def test_real_sizes_have_the_published_numbers_of_parameters() -> None:
    sd2 = {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024, "use_linear_projection": True}
    xl = {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": [5, 10, 20],
        "transformer_layers_per_block": [1, 2, 10],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    counts = []
    with torch.device("meta"):
        for config in ({"cross_attention_dim": 768}, sd2, xl):
            counts.append(sum(p.numel() for p in UNet(config).parameters()))
    assert counts == [859_520_964, 865_910_724, 2_567_463_684]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"down_block_types": ["CrossAttnDownBlock2D", "AttnDownBlock2D"]}, "down_block_types"),
        ({"up_block_types": ["UpBlock2D"]}, "up_block_types"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type"),
        ({"act_fn": "geglu"}, "act_fn"),
        ({"attention_head_dim": 5}, "heads"),
        ({"attention_head_dim": [4]}, "attention_head_dim"),
        ({"norm_num_groups": 3}, "groups"),
        ({"norm_num_groups": None}, "norm_num_groups"),
        ({"block_out_channels": [16, 1 << 40]}, "block_out_channels"),
        ({"block_out_channels": {"a": 1}}, "block_out_channels"),
        ({"block_out_channels": "16"}, "block_out_channels"),
        ({"layers_per_block": 0}, "layers_per_block"),
        ({"layers_per_block": "two"}, "layers_per_block"),
        ({"class_embed_type": "projection"}, "projection_class_embeddings_input_dim"),
        ({"addition_embed_type": "image"}, "addition_embed_type"),
        ({"addition_embed_type": "text_time"}, "addition_time_embed_dim"),
        ({"transformer_layers_per_block": [[1], [2]]}, "reverse_transformer_layers_per_block"),
        ({"dual_cross_attention": True}, "dual_cross_attention"),
    ],
)
def test_what_is_not_supported_is_said(change: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(PresetError, match=told) as error:
        UNet(SD1 | change)
    assert "\n" not in str(error.value)


def test_what_files_add_is_left_alone() -> None:
    with torch.device("meta"):
        UNet(SD1 | {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6", "sample_size": 64})
