"""DeepCache: exact where nothing is left out or nothing changes, near where something does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import pictura
from pictura.errors import ParameterError
from pictura.nn.deep_cache import DeepCache
from small_pipelines import saved


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = saved(request.param, tmp_path_factory.mktemp(request.param))
    return pictura.TextToImage.from_preset(folder, dtype="float32")


def drawn(model: Any, every: int, prompts: Any = "a cat", **more: Any) -> np.ndarray:
    options = {"num_steps": 8, "seed": 7, "size": (64, 48), "deep_cache": every, "sampler": "ddim", **more}
    return np.asarray(model.generate(prompts, **options), float)


def test_the_more_is_left_out_the_more_differs(model: Any) -> None:
    exact = drawn(model, 1)
    off = [np.abs(drawn(model, every) - exact).mean() for every in (2, 8)]
    assert 0 < off[0] < off[1] < 60


def test_alone_and_in_company(model: Any) -> None:
    both = drawn(model, 3, ["a cat", "a dog"])
    assert np.array_equal(both[0], drawn(model, 3, "a cat"))
    assert np.array_equal(both[1], drawn(model, 3, "a dog", seed=8))


def test_it_has_bounds(model: Any) -> None:
    with pytest.raises(ParameterError, match="give 1"):
        drawn(model, -2)


def test_a_step_that_changes_nothing_is_exact(model: Any) -> None:
    unet = model.family.unet
    config, g = unet.config, torch.Generator().manual_seed(0)
    x = torch.randn(1, config.in_channels, 12, 10, generator=g)
    time, text = torch.tensor([500.0]), torch.randn(1, 7, config.cross_attention_dim, generator=g)
    added = None
    if config.addition_embed_type:
        width = config.projection_class_embeddings_input_dim
        added = torch.randn(1, width, generator=g)
    cache = DeepCache(3)
    with torch.no_grad():
        right = unet(x, time, text, added)
        answers = [unet(x, time, text, added, cache=cache) for _ in range(5)]
        assert all(torch.equal(answer, right) for answer in answers)
        assert (cache.computed, cache.left_out) == (2, 3)
        moved = unet(x + 0.1, time, text, added, cache=cache)
        assert cache.left_out == 4 and not torch.equal(moved, unet(x + 0.1, time, text, added))
        other = torch.randn(1, config.in_channels, 8, 8, generator=g)
        assert torch.equal(unet(other, time, text, added, cache=cache), unet(other, time, text, added))
