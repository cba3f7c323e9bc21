"""The autoencoder against diffusers, on configurations drawn at random: values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from oracle import TOLERANCE, fill, near, normal, off, same_gradients, vae_config
from pictura.errors import PresetError
from pictura.nn import bands, kernels, rows, tiled, vae, winograd
from pictura.nn.vae import AutoencoderKL

diffusers = pytest.importorskip("diffusers")

SEEDS = range(8)


def pair(config: dict[str, Any], seed: int = 0) -> tuple[AutoencoderKL, Any]:
    theirs = diffusers.AutoencoderKL(**config).eval()
    fill(theirs, seed)
    ours = AutoencoderKL(dict(theirs.config)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs


@pytest.mark.parametrize("seed", SEEDS)
def test_equals_diffusers(seed: int) -> None:
    ours, theirs = pair(vae_config(seed), seed)
    x = normal(seed, 2, 3, 8 * ours.factor, 6 * ours.factor)
    (mean, logvar), wanted = ours.encode(x), theirs.encode(x).latent_dist
    assert off(mean, wanted.mean) <= TOLERANCE
    assert off(logvar, wanted.logvar) <= TOLERANCE
    z = normal(seed, 2, ours.config.latent_channels, 7, 9)
    found, picture = ours.decode(z), theirs.decode(z).sample
    assert found.shape == (2, 3, 7 * ours.factor, 9 * ours.factor)
    assert off(found, picture) <= TOLERANCE
    (mean.square().mean() + logvar.square().mean() + found.square().mean()).backward()
    (wanted.mean.square().mean() + wanted.logvar.square().mean() + picture.square().mean()).backward()
    same_gradients(ours, theirs)


@pytest.mark.parametrize("seed", SEEDS)
def test_without_gradients_the_same(seed: int) -> None:
    ours, _ = pair(vae_config(seed), seed)
    z = normal(seed, 1, ours.config.latent_channels, 7, 9)
    with torch.no_grad():
        quiet = ours.decode(z)
    assert off(quiet, ours.decode(z)) <= TOLERANCE


def test_real_sizes_have_the_published_numbers_of_parameters() -> None:
    real = {
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
    }
    sixteen = {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
    with torch.device("meta"):
        counts = [sum(p.numel() for p in AutoencoderKL(c).parameters()) for c in (real, real | sixteen)]
    assert counts == [83_653_863, 83_819_683]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"down_block_types": ["AttnDownEncoderBlock2D"]}, "down_block_types"),
        ({"up_block_types": ["UpDecoderBlock2D"] * 2}, "up_block_types"),
        ({"norm_num_groups": 5}, "groups"),
        ({"act_fn": "tanh"}, "act_fn"),
        ({"latent_channels": -4}, "latent_channels"),
        ({"use_quant_conv": "yes"}, "use_quant_conv"),
    ],
)
def test_what_is_not_supported_is_said(change: dict[str, Any], told: str) -> None:
    with torch.device("meta"), pytest.raises(PresetError, match=told):
        AutoencoderKL(change)


@torch.no_grad()
def same(ours: AutoencoderKL, theirs: Any, z: Tensor, x: Tensor, threads: int) -> None:
    """Both ways, with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        near(ours.decode(z), theirs.decode(z).sample)
        (mean, logvar), wanted = ours.encode(x), theirs.encode(x).latent_dist
        near(mean, wanted.mean)
        near(logvar, wanted.logvar)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_large_maps_some_rows_at_a_time(seed: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as all at once, without seams, for sides that bands do not divide."""
    ours, theirs = pair(vae_config(seed), seed)
    z = normal(seed, 2, ours.config.latent_channels, 37, 5)
    x = normal(seed, 2, 3, 40 * ours.factor, 6 * ours.factor)
    monkeypatch.setattr(vae, "LARGE", 0)
    monkeypatch.setattr(bands, "BYTES", 0)
    monkeypatch.setattr(bands, "ROWS", 6)
    same(ours, theirs, z, x, threads)


@pytest.mark.parametrize(("seed", "threads", "large"), [(0, 1, 0), (3, 3, 0), (6, 1, vae.LARGE)])
def test_maps_by_winograds_method(
    seed: int, threads: int, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine where that is always quicker; large maps some rows of tiles at a time."""
    config = vae_config(seed) | {"layers_per_block": 1}
    config["block_out_channels"] = [max(16, width) for width in config["block_out_channels"]]
    ours, theirs = pair(config, seed)
    kernels.accelerate(ours)
    z, x = normal(seed, 1, ours.config.latent_channels, 13, 18), normal(seed, 1, 3, 40, 36)
    rates = {"direct": 1e-3, "tile": 0.0, "batched": 1.0, "grouped": 0.0}
    monkeypatch.setattr(tiled, "rates", lambda: rates)
    monkeypatch.setattr(winograd, "TILES", 20)
    monkeypatch.setattr(winograd, "BAND", 1 << 16)
    monkeypatch.setattr(vae, "LARGE", large)
    same(ours, theirs, z, x, threads)


def test_bits_depend_neither_on_the_batch_nor_on_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair(vae_config(1), 1)
    z = normal(1, 3, ours.config.latent_channels, 40, 9)
    monkeypatch.setattr(vae, "LARGE", 0)
    monkeypatch.setattr(bands, "BYTES", 0)
    with torch.no_grad():
        together = ours.decode(z)
        assert all(torch.equal(together[i : i + 1], ours.decode(z[i : i + 1])) for i in range(3))


def test_a_band_that_fails_is_the_callers_error() -> None:
    def fail(item: int) -> None:
        if item == 5:
            raise IndexError("five")

    with pytest.raises(IndexError, match="five"):
        rows.deal(fail, range(9))
