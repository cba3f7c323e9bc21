"""Files of eight-bit weights, with and without factors beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pictura import CheckpointError, TextToImage, checkpoints
from pictura.converting import convert
from pictura.formats.safetensors import fill

Written = Callable[[str], Path]
HEAD = "model.diffusion_model."


@pytest.fixture
def whole(written: Written, tmp_path: Path) -> dict[str, torch.Tensor]:
    return load_file(convert(written("flux"), tmp_path / "whole", "single-file"))


def read(place: Path, config: Path) -> dict[str, torch.Tensor]:
    entries = checkpoints.find(place, config=config).recipe.entries
    tensors = {name: torch.empty(entry.shape) for name, entry in entries.items()}
    fill(entries, tensors)
    return tensors


def test_factors_are_multiplied_in(written: Written, whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    scaled, plain = dict(whole), dict(whole)
    for name, tensor in whole.items():
        if name.startswith(HEAD) and tensor.ndim == 2:
            factor = tensor.abs().max() / 448
            scaled[name] = (tensor / factor).to(torch.float8_e4m3fn)
            scaled[name.removesuffix("weight") + "scale_weight"] = factor
            scaled[name.removesuffix("weight") + "scale_input"] = torch.tensor(1.0)
            plain[name] = scaled[name].float() * factor  # what the file says in full
    scaled[f"{HEAD}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    save_file(scaled, tmp_path / "scaled.safetensors")
    save_file(plain, tmp_path / "plain.safetensors")
    ours, theirs = (read(tmp_path / f"{name}.safetensors", written("flux")) for name in ("scaled", "plain"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
    convert(tmp_path / "scaled.safetensors", tmp_path / "half", config=written("flux"))
    half = load_file(tmp_path / "half" / "model.safetensors")
    name = "transformer.single_transformer_blocks.0.attn.to_k.weight"
    assert torch.equal(half[name], theirs[name].bfloat16())
    model = TextToImage.from_preset(tmp_path / "scaled.safetensors", config=written("flux"), dtype="float32")
    assert torch.equal(model.backbone["transformer"].state_dict()[name.partition(".")[2]], theirs[name])


def test_eight_bits_without_factors(written: Written, whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    cast = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in whole.items()}
    save_file(cast, tmp_path / "cast.safetensors")
    save_file({name: tensor.float() for name, tensor in cast.items()}, tmp_path / "plain.safetensors")
    ours, theirs = (read(tmp_path / f"{name}.safetensors", written("flux")) for name in ("cast", "plain"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_factors_of_nothing(written: Written, whole: dict[str, torch.Tensor], tmp_path: Path) -> None:
    for name, factor in (
        (f"{HEAD}none.scale_weight", torch.tensor(1.0)),
        (f"{HEAD}img_in.scale_weight", torch.ones(3)),
    ):
        save_file({**whole, name: factor}, tmp_path / "wrong.safetensors")
        with pytest.raises(CheckpointError, match="is no factor of a weight"):
            checkpoints.find(tmp_path / "wrong.safetensors", config=written("flux"))
        (tmp_path / "wrong.safetensors").unlink()
