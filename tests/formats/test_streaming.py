"""Networks whose blocks are read when they are called: the same answers, little memory, clear errors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pictura.errors import CheckpointError
from pictura.families.flux.model import FluxTransformer
from pictura.formats import networks, safetensors, writing
from pictura.formats.streaming import absent
from pictura.nn.t5 import T5Encoder

FLUX = {
    "in_channels": 16, "num_layers": 3, "num_single_layers": 4, "attention_head_dim": 16,
    "num_attention_heads": 2, "joint_attention_dim": 24, "pooled_projection_dim": 12,
    "axes_dims_rope": [4, 6, 6],
}  # fmt: skip
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 4, "num_heads": 2}


class Model:
    def __init__(self) -> None:
        self.parts = {"transformer": FluxTransformer(FLUX), "text_encoder_2": T5Encoder(T5)}

    def networks(self) -> dict[str, nn.Module]:
        return dict(self.parts)

    def read(self) -> Tensor:
        answer: Tensor = self.parts["text_encoder_2"](torch.tensor([[4, 7, 2, 1, 0]]))
        return answer

    def ask(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        x, context, pooled = (
            torch.randn(shape, generator=rng).to(dtype) for shape in ((1, 4, 6, 4), (1, 5, 24), (1, 12))
        )
        answer: Tensor = self.parts["transformer"](x, torch.tensor([0.5]), context, pooled)
        return answer


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, safetensors.Entry]:
    torch.manual_seed(0)
    weights = {name: tensor.detach() for name, tensor in networks.tensors(Model().networks()).items()}
    writing.write(tmp_path, weights, shard=40_000)
    return safetensors.weights(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_streamed_is_loaded(entries: dict[str, safetensors.Entry], dtype: torch.dtype) -> None:
    loaded = networks.build(Model, entries, dtype=dtype)
    streamed = networks.build(Model, entries, dtype=dtype, streamed=True)
    for seed in range(2):
        assert torch.equal(streamed.ask(seed, dtype), loaded.ask(seed, dtype))
        assert torch.equal(streamed.read(), loaded.read())


@torch.no_grad()
def test_nothing_stays(entries: dict[str, safetensors.Entry]) -> None:
    """Between passes the matrices of all blocks are away, and everything else is there."""
    model = networks.build(Model, entries, streamed=True)
    names = {
        name for name, tensor in networks.tensors(model.networks()).items()
        if ".transformer_blocks." in name or ".single_transformer_blocks." in name or ".block." in name
        if tensor.ndim == 2 and "relative_attention_bias" not in name
    }  # fmt: skip
    for _ in range(2):
        away = {name for name, tensor in networks.tensors(model.networks()).items() if absent(tensor)}
        assert away == names
        model.ask()
        model.read()


@torch.no_grad()
def test_one_block_at_a_time(entries: dict[str, safetensors.Entry]) -> None:
    model = networks.build(Model, entries, streamed=True)
    blocks = [
        *model.parts["transformer"].transformer_blocks,
        *model.parts["transformer"].single_transformer_blocks,
    ]
    here: list[int] = []
    for block in blocks:
        block.register_forward_hook(
            lambda *_: here.append(
                sum(not absent(block.norm1.linear.weight) for block in blocks[:3])
                + sum(not absent(block.norm.linear.weight) for block in blocks[3:])
            )
        )
    model.ask()
    assert len(here) == 7 and max(here) <= 1


@torch.no_grad()
def test_skipped_and_interrupted(entries: dict[str, safetensors.Entry]) -> None:
    """A pass that ends early, or leaves out blocks, spoils none that follow."""
    model = networks.build(Model, entries, streamed=True)
    expected = networks.build(Model, entries).ask()
    blocks = model.parts["transformer"].transformer_blocks
    stop = blocks[1].register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        model.ask()
    stop.remove()
    assert torch.equal(model.ask(), expected)


@torch.no_grad()
def test_file_that_shrinks(entries: dict[str, safetensors.Entry]) -> None:
    model = networks.build(Model, entries, streamed=True)
    file = max({entry.file for entry in entries.values()})
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="ends within tensor"):
        model.ask()
        model.read()
