"""bfloat16 and int8: what is lost, what is chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pictura
from pictura import loading
from pictura.errors import ParameterError
from pictura.nn import kernels, precision
from small_pipelines import saved


@pytest.mark.parametrize(("rows", "given", "width"), [(1, 24, 40), (3, 64, 64), (1100, 48, 72)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_int8_linear(rows: int, given: int, width: int, bias: bool) -> None:
    """Of every row, a large one among them, the answer is off by what rounding to 127 steps costs."""
    torch.manual_seed(rows)
    linear, x = nn.Linear(given, width, bias=bias), torch.randn(2, rows, given)
    x[0, 0] *= 1000
    expected = linear(x)
    precision.quantise(linear)
    answer = linear(x)
    assert answer.shape == expected.shape and answer.dtype == x.dtype
    error = (answer - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert error.max() < 0.04 and error.mean() < 0.015
    assert linear(x.bfloat16()).dtype == torch.bfloat16
    assert linear.weight.dtype == torch.int8 and linear.weight.nbytes == given * width


@torch.no_grad()
def test_int8_products_are_exact() -> None:
    """Against the formula in integers."""
    torch.manual_seed(0)
    linear, x = nn.Linear(32, 16), torch.randn(5, 32)
    precision.quantise(linear)
    step = x.abs().amax(1, keepdim=True) / 127
    whole = (x / step).round().long() @ linear.weight.long().T
    assert torch.allclose(linear(x), whole * step * linear.scale + linear.bias, rtol=1e-5, atol=1e-6)


def test_modulations_and_ends_stay() -> None:
    from pictura.families.flux.model import FluxTransformer

    network = FluxTransformer(
        {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16,
         "in_channels": 16, "joint_attention_dim": 24, "pooled_projection_dim": 12,
         "axes_dims_rope": [4, 6, 6]}
    )  # fmt: skip
    precision.with_int8(network)
    kinds = {name: type(linear) for name, linear in network.named_modules() if isinstance(linear, nn.Linear)}
    small = {name for name, kind in kinds.items() if kind is precision.Int8Linear}
    assert len(small) == 12 + 5
    assert all(".attn." in name or ".ff" in name or ".proj_" in name for name in small)


def psnr(one: Any, other: Any) -> float:
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, float]], None]:
    """Say what a machine measures."""
    return lambda found: monkeypatch.setattr(precision, "rates", lambda: found)


BOTH = {"float32": 1.0, "bfloat16": 3.0, "int8": 5.0}


@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd3", "flux"])
def test_pictures(name: str, tmp_path: Path, fast: Callable[[dict[str, float]], None]) -> None:
    """Random small networks exaggerate: published ones lose far less. docs/performance.md has larger ones."""
    fast(BOTH)
    folder = saved(name, tmp_path)
    options: dict[str, Any] = {"num_steps": 4, "seed": 7, "size": (64, 48)}
    drawn = {
        dtype: pictura.TextToImage.from_preset(folder, dtype=dtype).generate("a cat", **options)
        for dtype in ("float32", "bfloat16", "int8")
    }
    assert psnr(drawn["float32"], drawn["bfloat16"]) > 25
    assert psnr(drawn["float32"], drawn["int8"]) > 20
    assert not np.array_equal(drawn["float32"], drawn["bfloat16"])


def test_what_is_chosen(fast: Callable[[dict[str, float]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Large models take what the machine gains by, small ones float32; a wish and PICTURA_DTYPE go first."""
    monkeypatch.delenv("PICTURA_DTYPE", raising=False)
    cpu, large = torch.device("cpu"), loading.LARGE + 1
    single, half = torch.float32, torch.bfloat16
    fast(BOTH)
    assert loading._precision(None, cpu, large) == (half, False)
    assert loading._precision(None, cpu, 1000) == (single, False)
    assert loading._precision("float32", cpu, large) == (single, False)
    assert loading._precision("int8", cpu, large) == (half, True)
    monkeypatch.setenv("PICTURA_DTYPE", "float32")
    assert loading._precision(None, cpu, large) == (single, False)
    assert loading._precision("bfloat16", cpu, large) == (half, False)
    monkeypatch.delenv("PICTURA_DTYPE")
    fast({"float32": 1.0, "bfloat16": 0.1, "int8": 1.1})
    assert loading._precision(None, cpu, large) == (single, False)
    assert loading._precision("int8", cpu, large) == (single, False)


def test_int8_is_neither_saved_nor_trained(tmp_path: Path, fast: Callable[[dict[str, float]], None]) -> None:
    fast(BOTH)
    loaded = loading.load(saved("sd3", tmp_path), dtype="int8")
    with pytest.raises(ParameterError, match="dtype='float32'"):
        loading.save(loaded, tmp_path / "copy")


@torch.no_grad()
def test_rates_are_of_this_machine() -> None:
    found = precision.rates()
    assert set(found) == {"float32", "bfloat16", "int8"} and min(found.values()) > 1e8


@torch.no_grad()
def test_accelerated_transformer_answers_alike() -> None:
    from pictura.families.stable_diffusion_3.model import MMDiT

    torch.manual_seed(0)
    network = MMDiT(
        {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 4,
         "joint_attention_dim": 24, "pooled_projection_dim": 12, "caption_projection_dim": 32,
         "pos_embed_max_size": 40, "qk_norm": "rms_norm", "dual_attention_layers": [0]}
    ).eval()  # fmt: skip
    x, rest = torch.randn(1, 4, 64, 48), (torch.tensor([400.0]), torch.randn(1, 9, 24), torch.randn(1, 12))
    mask = torch.rand(1, 1, 9 + 768, 9 + 768) > 0.2
    plain = network(x, *rest), network(x, *rest, mask=mask)
    kernels.accelerate(network)
    for one, other in zip(plain, (network(x, *rest), network(x, *rest, mask=mask)), strict=True):
        assert (one - other).abs().max() < 1e-5 * other.abs().max()
    assert F.scaled_dot_product_attention is not network.transformer_blocks[0].attn.mixing


def test_a_lora_is_not_fused_into_int8() -> None:
    from pictura.nn import lora

    network = nn.Sequential(nn.Linear(8, 8))
    delta = lora.Low(down=torch.randn(2, 8), up=torch.randn(8, 2), factor=1.0)
    precision.quantise(network[0])
    with pytest.raises(ParameterError, match="int8"):
        lora.fuse({"net": network}, {"net": [lora.Placed(layer="0", delta=delta, scale=1.0)]})
