"""First-block cache: exact where nothing is left out, near where something is, alone and in company alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pictura
from pictura.errors import ParameterError
from pictura.families.flux.model import FluxTransformer
from pictura.families.stable_diffusion_3.model import MMDiT
from pictura.nn.block_cache import BlockCache
from small_pipelines import saved


@pytest.fixture(scope="module", params=["sd3", "flux"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = saved(request.param, tmp_path_factory.mktemp(request.param))
    return pictura.TextToImage.from_preset(folder, dtype="float32")


def drawn(model: Any, tolerance: float, prompts: Any = "a cat", **more: Any) -> np.ndarray:
    options = {"num_steps": 8, "seed": 7, "size": (64, 48), "block_cache": tolerance, **more}
    return np.asarray(model.generate(prompts, **options), float)


def test_tolerance(model: Any) -> None:
    """The less may be off, the nearer the picture; with almost nothing allowed it is the same."""
    exact = drawn(model, 0.0)
    off = [np.abs(drawn(model, tolerance) - exact).mean() for tolerance in (1e-6, 0.05, 1.0)]
    assert off[0] == 0 and off[0] <= off[1] < off[2] < 40


def test_alone_and_in_company(model: Any) -> None:
    both = drawn(model, 0.3, ["a cat", "a dog"])
    assert np.array_equal(both[0], drawn(model, 0.3, "a cat"))
    assert np.array_equal(both[1], drawn(model, 0.3, "a dog", seed=8))


def test_tolerance_has_bounds(model: Any) -> None:
    with pytest.raises(ParameterError, match="give 0 to 1"):
        drawn(model, 2.0)


CONFIGS = {
    MMDiT: {
        "num_layers": 4, "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4,
        "joint_attention_dim": 24, "pooled_projection_dim": 12, "caption_projection_dim": 32,
    },
    FluxTransformer: {
        "num_layers": 2, "num_single_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16,
        "in_channels": 16, "joint_attention_dim": 24, "pooled_projection_dim": 12,
        "axes_dims_rope": [4, 6, 6],
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_what_is_left_out(kind: Any) -> None:
    """Asked the same again, the first block alone is computed, and the answer is the same."""
    torch.manual_seed(0)
    network, cache = kind(CONFIGS[kind]).eval(), BlockCache(0.05)
    inputs = torch.randn(1, 4, 8, 6), torch.tensor([0.5]), torch.randn(1, 5, 24), torch.randn(1, 12)
    calls: list[int] = []
    lists = [network.transformer_blocks, *([network.single_transformer_blocks] if kind is not MMDiT else [])]
    for blocks in lists:
        for block in blocks:
            block.register_forward_hook(lambda *_: calls.append(1))
    exact = network(*inputs, cache=cache)
    full = len(calls)
    again = network(*inputs, cache=cache)
    assert full == sum(map(len, lists)) and len(calls) == full + 1
    assert (again - exact).abs().max() < 1e-5 * exact.abs().max()
    assert (cache.computed, cache.left_out) == (1, 1)
    network(torch.randn(1, 4, 8, 6), *inputs[1:], cache=cache)
    network(torch.randn(1, 4, 8, 8), *inputs[1:], cache=cache)
    assert (cache.computed, cache.left_out) == (3, 1)
