"""Text and picture encoders against transformers: outputs, every hidden state, gradients, names."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracle import fill, near
from pictura.errors import PresetError
from pictura.nn.clip import ClipText
from pictura.nn.clip_vision import ClipVision
from pictura.nn.t5 import T5Encoder, buckets

transformers = pytest.importorskip("transformers")


def randomise(module: nn.Module, seed: int) -> None:
    fill(module, seed, 0.1)
    module.eval()


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Names as in circulation: transformers 5 drops the prefix where nothing is projected."""
    return {n if n.startswith((prefix, "visual_", "text_p")) else f"{prefix}{n}": t for n, t in state.items()}


def clip_config(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    heads = draw.choice([2, 3, 4])
    return {
        "vocab_size": draw.randint(60, 120),
        "hidden_size": heads * draw.choice([4, 8]),
        "intermediate_size": draw.randint(20, 50),
        "projection_dim": draw.randint(5, 20),
        "num_hidden_layers": draw.randint(2, 4),
        "num_attention_heads": heads,
        "max_position_embeddings": draw.randint(11, 20),
        "hidden_act": ["quick_gelu", "gelu"][seed % 2],
        "layer_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": [2, 7][seed // 2 % 2],
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("projected", [True, False])
def test_clip_text_equals_transformers(seed: int, projected: bool) -> None:
    config = clip_config(seed)
    theirs_class = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    theirs = theirs_class(transformers.CLIPTextConfig(**config, attn_implementation="eager"))
    randomise(theirs, seed)
    ours = ClipText(config, projected=projected)
    ours.load_state_dict(prefixed(theirs.state_dict(), "text_model."), strict=True)

    n = config["max_position_embeddings"] - seed % 2
    ids = torch.randint(8, config["vocab_size"] - 1, (3, n), generator=torch.Generator().manual_seed(seed))
    end = config["vocab_size"] - 1 if config["eos_token_id"] == 2 else config["eos_token_id"]
    for row, at in enumerate([4, n - 1, 6]):
        ids[row, at:] = end  # padded with the end token, as CLIP-L does: the first one counts
    ids[0, 6:] = 0  # padded with another
    expected = theirs(ids, output_hidden_states=True)
    ours.train()  # nothing here may depend on the mode
    found = ours(ids)

    assert len(found.hidden) == len(expected.hidden_states)
    for a, b in zip(found.hidden, expected.hidden_states, strict=True):
        near(a, b)
    near(found.last, expected.last_hidden_state)
    if projected:
        near(found.projected, expected.text_embeds)
    else:
        assert found.projected is None
        near(found.pooled, expected.pooler_output)
    if config["eos_token_id"] != 2:
        model = theirs.text_model if projected else theirs
        near(ours.normed(found.hidden[-2]), model.final_layer_norm(expected.hidden_states[-2]))

    (found.projected if projected else found.pooled).square().mean().backward()
    (expected.text_embeds if projected else expected.pooler_output).square().mean().backward()
    by_name = prefixed(dict(theirs.named_parameters()), "text_model.")
    for name in (
        "embeddings.token_embedding",
        "encoder.layers.1.self_attn.q_proj",
        "encoder.layers.0.mlp.fc2",
    ):
        full = f"text_model.{name}.weight"
        near(ours.get_parameter(full).grad, by_name[full].grad, 1e-4)


def test_rows_stand_in_for_ids_beyond_the_vocabulary() -> None:
    config = clip_config(3)
    ours = ClipText(config)
    randomise(ours, 3)
    known = config["vocab_size"]
    rows = torch.randn(1, 2, config["hidden_size"])
    ids = torch.tensor([[1, 9, known + 1, known, 10, config["eos_token_id"]]])
    found = ours(ids, rows)

    wider = ClipText({**config, "vocab_size": known + 2})
    state = ours.state_dict()
    name = "text_model.embeddings.token_embedding.weight"
    wider.load_state_dict({**state, name: torch.cat([state[name], rows[0]])})
    assert torch.equal(found.last, wider(ids).last)
    assert not torch.equal(found.last, ours(ids.clamp(max=known - 1)).last)


def test_the_end_of_old_configurations_is_not_taken_for_an_added_token() -> None:
    config = {**clip_config(0), "eos_token_id": 2}
    ours = ClipText(config)
    randomise(ours, 0)
    known = config["vocab_size"]
    ids = torch.tensor([[1, known, known - 1, 0]])
    found = ours(ids, torch.zeros(1, 1, config["hidden_size"]))
    assert torch.equal(found.pooled[0], found.last[0, 2])


def test_the_configuration_says_whether_there_is_a_projection() -> None:
    with_it = ClipText({**clip_config(1), "architectures": ["CLIPTextModelWithProjection"]})
    assert "text_projection.weight" in with_it.state_dict()
    assert "text_projection.weight" not in ClipText(clip_config(1)).state_dict()


@pytest.mark.parametrize("change", [{"hidden_act": "gleu"}, {"num_attention_heads": 7}])
def test_a_senseless_configuration_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PresetError, match="text encoder"):
        ClipText({**clip_config(1), "hidden_size": 16, **change})


@pytest.mark.parametrize("seed", range(3))
def test_clip_vision_equals_transformers(seed: int) -> None:
    draw = random.Random(seed)
    heads, patch = draw.choice([2, 3]), draw.choice([4, 7])
    config = {
        "hidden_size": heads * 8,
        "intermediate_size": draw.randint(20, 50),
        "projection_dim": draw.randint(5, 20),
        "num_hidden_layers": draw.randint(2, 4),
        "num_attention_heads": heads,
        "image_size": patch * draw.choice([3, 5]),
        "patch_size": patch,
        "hidden_act": ["quick_gelu", "gelu"][seed % 2],
    }
    theirs = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**config, attn_implementation="eager")
    )
    randomise(theirs, seed)
    ours = ClipVision({**config, "architectures": ["CLIPVisionModelWithProjection"]})
    ours.load_state_dict(theirs.state_dict(), strict=True)
    pictures = torch.randn(2, 3, config["image_size"], config["image_size"])
    expected, found = theirs(pictures, output_hidden_states=True), ours(pictures)
    near(found.projected, expected.image_embeds)
    near(found.last, expected.last_hidden_state)
    for a, b in zip(found.hidden, expected.hidden_states, strict=True):
        near(a, b)
    found.projected.square().mean().backward()
    expected.image_embeds.square().mean().backward()
    for name in ("embeddings.patch_embedding.weight", "embeddings.class_embedding", "pre_layrnorm.bias"):
        full = f"vision_model.{name}"
        near(ours.get_parameter(full).grad, theirs.get_parameter(full).grad, 1e-4)


def t5_config(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    return {
        "vocab_size": draw.randint(50, 120),
        "d_model": draw.choice([12, 16, 20]),
        "d_kv": draw.choice([3, 8]),
        "d_ff": draw.randint(20, 50),
        "num_layers": draw.randint(2, 4),
        "num_heads": draw.choice([2, 3]),
        "relative_attention_num_buckets": draw.choice([16, 32]),
        "relative_attention_max_distance": draw.choice([40, 128]),
        "feed_forward_proj": ["gated-gelu", "relu", "gated-silu"][seed % 3],
    }


def t5_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != "encoder.embed_tokens.weight"}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("masked", [False, True])
def test_t5_equals_transformers(seed: int, masked: bool) -> None:
    config = t5_config(seed)
    theirs = transformers.T5EncoderModel(transformers.T5Config(**config))
    randomise(theirs, seed)
    ours = T5Encoder(config)
    ours.load_state_dict(t5_names(theirs.state_dict()), strict=True)
    ids = torch.randint(0, config["vocab_size"], (2, 150), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, 99:] = 0
    found = ours(ids, mask if masked else None)
    expected = theirs(ids, attention_mask=mask if masked else None).last_hidden_state
    near(found, expected)
    found.square().mean().backward()
    expected.square().mean().backward()
    for name in (
        "shared.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight",
    ):
        near(ours.get_parameter(name).grad, theirs.get_parameter(name).grad, 1e-4)


def test_float16_survives_what_would_overflow() -> None:
    config = {**t5_config(0), "feed_forward_proj": "gated-gelu"}
    ours = T5Encoder(config)
    randomise(ours, 0)
    with torch.no_grad():
        ours.encoder.block[0].layer[1].DenseReluDense.wo.weight.mul_(60_000)
    ids = torch.arange(20)[None]
    exact = ours(ids)
    half = ours.half()(ids)
    assert half.dtype == torch.float16 and torch.isfinite(half).all()
    near(half.float(), exact, 0.02)


@pytest.mark.parametrize("count,furthest", [(32, 128), (16, 40), (8, 20)])
def test_buckets_of_distance(count: int, furthest: int) -> None:
    away = torch.arange(-300, 301)
    from transformers.models.t5.modeling_t5 import T5Attention

    expected = T5Attention._relative_position_bucket(away, True, count, furthest)
    assert torch.equal(buckets(away, count, furthest), expected)


PUBLISHED = {
    # name: (class, configuration, whether it projects, parameters)
    "CLIP-L": (ClipText, (768, 3072, 12, 12, 768), False, 123_060_480),
    "OpenCLIP-H, 23 layers": (ClipText, (1024, 4096, 23, 16, 512), False, 340_387_840),
    "OpenCLIP-bigG": (ClipText, (1280, 5120, 32, 20, 1280), True, 694_659_840),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_clip_encoders_have_their_size(name: str) -> None:
    kind, sizes, projected, count = PUBLISHED[name]
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim")
    with torch.device("meta"):
        network = kind(dict(zip(names, sizes, strict=True)), projected=projected)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_t5_xxl_has_its_size() -> None:
    sizes = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    with torch.device("meta"):
        network = T5Encoder({**sizes, "feed_forward_proj": "gated-gelu"})
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_762_310_656
