"""Large models compute the quickest way, in float32 too where that was asked for in so many words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pictura
from pictura import loading
from pictura.nn import kernels, tiled
from small_pipelines import saved


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("sd1", tmp_path_factory.mktemp("quick"))


def quick(model: Any) -> set[bool]:
    """Whether its linear layers are ours, of each network."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {
        any(isinstance(m, (kernels.Linear, tiled.Conv3x3)) for m in network.modules())
        for network in model.family.networks().values()
        if any(isinstance(m, kinds) for m in network.modules())
    }


@pytest.mark.parametrize("by", ["argument", "environment", "torch"])
def test_float32_in_so_many_words(folder: Path, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "LARGE", 0)
    given: dict[str, Any] = {"argument": {"dtype": "float32"}, "torch": {"dtype": torch.float32}}.get(by, {})
    if by == "environment":
        monkeypatch.setenv("PICTURA_DTYPE", "float32")
    model = pictura.TextToImage.from_preset(folder, **given)
    assert quick(model) == {True}
    assert {p.dtype for p in model.family.networks()["unet"].parameters()} == {torch.float32}
    monkeypatch.setenv("PICTURA_KERNELS", "torch")
    assert quick(pictura.TextToImage.from_preset(folder, **given)) == {False}


def test_otherwise_the_quickest_way_and_nearly_the_same_picture(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = pictura.TextToImage.from_preset(folder, dtype="float32")
    monkeypatch.setattr(loading, "LARGE", 0)
    monkeypatch.setattr(loading.precision, "rates", lambda: {"bfloat16": 1.0, "float32": 1.0, "int8": 1.0})
    rates = {"products": {"linear": 1.0}, "convolutions": {"direct": 1e-3, "tile": 0.0}}
    rates["attentions"] = {f"{way} torch.float32": n for n, way in enumerate(("fused", "by head"), 1)}
    monkeypatch.setattr(kernels, "rates", rates.__getitem__)
    model = pictura.TextToImage.from_preset(folder)
    assert quick(model) == {True}
    asked = {"num_steps": 4, "seed": 3, "size": (64, 48)}
    found, right = (np.asarray(m.generate("a cat", **asked), int) for m in (model, exact))
    assert np.abs(found - right).max() <= 1
