"""KerasHub's Stable Diffusion 3: its presets as our networks, against its own answers; wrong files."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("keras_hub", reason="make test installs keras-hub")

import h5py  # noqa: E402  # after the backend is chosen
from keras_hub.models import CLIPTextEncoder, StableDiffusion3Backbone  # noqa: E402
from keras_hub.src.models.vae.vae_backbone import VAEBackbone  # noqa: E402

from oracle import normal  # noqa: E402
from pictura import TextToImage, checkpoints, loading  # noqa: E402
from pictura.converting import convert  # noqa: E402
from pictura.errors import CheckpointError  # noqa: E402
from pictura.formats import keras, networks, safetensors  # noqa: E402

LENGTH = 11
SIZE = (32, 48)  # height, width


def backbone(seed: int) -> StableDiffusion3Backbone:
    """A small random one; odd seeds are like 3.5, some of those like 3.5 medium."""
    rng = random.Random(seed)
    layers, heads = rng.randint(2, 3), rng.randint(2, 3)
    each, channels = rng.randint(1, 2), rng.choice([4, 16])
    filters = [32, 64] if seed % 2 else [32, 32, 32]
    vae = VAEBackbone(
        filters, [each] * len(filters), filters[::-1], [each + 1] * len(filters),
        sampler_method="mode", sample_channels=2 * channels, scale=1.3, shift=0.2,
    )  # fmt: skip
    clip = {"max_sequence_length": LENGTH, "vocabulary_size": 50}
    width_l, width_g = 8 * rng.randint(2, 4), 12 * rng.randint(2, 4)
    made = StableDiffusion3Backbone(
        2, 16 * heads, layers, heads, rng.randint(14, 20), "rms_norm" if seed % 2 else None,
        tuple(range(rng.randint(1, layers - 1))) if seed % 4 == 1 else None, vae,
        CLIPTextEncoder(
            embedding_dim=width_l, hidden_dim=width_l, num_layers=rng.randint(2, 3), num_heads=2,
            intermediate_dim=40, intermediate_output_index=-2, name="clip_l", **clip,
        ),
        CLIPTextEncoder(
            embedding_dim=width_g, hidden_dim=width_g, num_layers=2, num_heads=3, intermediate_dim=56,
            intermediate_activation="gelu", intermediate_output_index=-2, name="clip_g", **clip,
        ),
        latent_channels=channels, image_shape=(*SIZE, 3),
    )  # fmt: skip
    numbers = np.random.default_rng(seed)
    for weight in made.weights:
        around = 1.0 if weight.path.endswith(("gamma", "scale")) else 0.0
        size = 0.02 if "context_embedding" in weight.path else 0.1
        weight.assign(around + size * numbers.standard_normal(weight.shape))
    return made


@pytest.fixture(scope="module", params=[0, 1, 3])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """(KerasHub's model, ours, the folder it was saved in)."""
    folder = tmp_path_factory.mktemp("keras") / "preset"
    theirs = backbone(request.param)
    theirs.save_to_preset(str(folder))
    return theirs, loading.load(folder), folder


def numbers(tensor: Any) -> Tensor:
    """A tensor of Keras as one of ours."""
    return torch.as_tensor(tensor).detach().cpu()


def last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


def off(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape and other.std() > 1e-3
    return float((one.detach() - other).abs().max() / other.abs().max())


def test_every_weight(pair: tuple[Any, Any, Path]) -> None:
    theirs, ours, _ = pair
    parts = ours.family.networks()
    assert set(parts) == {"transformer", "vae", "text_encoder", "text_encoder_2"}
    assert (
        sum(p.numel() for part in parts.values() for p in part.state_dict().values()) == theirs.count_params()
    )


def test_text(pair: tuple[Any, Any, Path]) -> None:
    theirs, ours, _ = pair
    ids = torch.randint(1, 48, (2, LENGTH), generator=torch.Generator().manual_seed(1))
    ids[0, 4:], ids[1, 8:] = 49, 49
    tokens = {"clip_l": ids, "clip_g": ids}
    context, _, pooled, _ = map(numbers, theirs.encode_text_step(tokens, tokens))
    with torch.no_grad():
        l, g = (ours.family.networks()[name](ids) for name in ("text_encoder", "text_encoder_2"))  # noqa: E741
    clip = torch.cat([l.hidden[-2], g.hidden[-2]], -1)
    assert off(clip, context[:, :LENGTH, : clip.shape[-1]]) < 1e-5
    # Keras has 1e-6 in the last norm, where every other library has 1e-5.
    assert off(torch.cat([l.projected, g.projected], -1), pooled) < 1e-4


def test_transformer(pair: tuple[Any, Any, Path]) -> None:
    theirs, ours, _ = pair
    transformer = ours.family.networks()["transformer"]
    h, w = theirs._latent_shape[:2]
    x, time = normal(1, 2, theirs.latent_channels, h, w), torch.tensor([713.5, 8.929])
    context, pooled = normal(2, 2, 9, 4096), normal(3, 2, transformer.config["pooled_projection_dim"])
    inputs = {"latent": last(x), "context": context, "pooled_projection": pooled, "timestep": time[:, None]}
    other = numbers(theirs.diffuser(inputs, training=False))
    with torch.no_grad():
        assert off(last(transformer(x, time, context, pooled)), other) < 1e-5


def test_autoencoder(pair: tuple[Any, Any, Path]) -> None:
    theirs, ours, _ = pair
    vae = ours.family.networks()["vae"]
    z, picture = normal(1, 2, theirs.latent_channels, 6, 4), normal(2, 1, 3, *SIZE)
    with torch.no_grad():
        assert off(last(vae.decode(z)), numbers(theirs.vae.decode(last(z)))) < 1e-5
        assert off(last(vae.encode(picture)[0]), numbers(theirs.vae.encode(last(picture)))) < 1e-5


def test_four_guided_steps_to_a_picture(pair: tuple[Any, Any, Path], record: Any) -> None:
    """Its loop, with our networks in it: schedule, guidance, scale and shift of the latent."""
    theirs, ours, _ = pair
    parts, h, w = ours.family.networks(), *theirs._latent_shape[:2]
    x = normal(1, 1, theirs.latent_channels, h, w)
    contexts = normal(2, 2, 9, 4096)
    pooled = normal(3, 2, parts["transformer"].config["pooled_projection_dim"])
    theirs.configure_scheduler(4)
    other = last(x)
    embeddings = (contexts[:1], contexts[1:], pooled[:1], pooled[1:])
    for step in range(4):
        other = theirs.denoise_step(other, embeddings, step, 4, 3.0)
    sigmas = [float(theirs.scheduler(*map(torch.tensor, (step, 4)))[0]) for step in range(5)]
    assert sigmas == sorted(sigmas, reverse=True) and sigmas[-1] == 0
    with torch.no_grad():
        for now, then in zip(sigmas, sigmas[1:], strict=False):
            yes, no = (
                parts["transformer"](x, torch.tensor([1000 * now]), c[None], p[None])
                for c, p in zip(contexts, pooled, strict=True)
            )
            x = x + (then - now) * (no + 3.0 * (yes - no))
        picture = parts["vae"].decode(ours.family.unscaled(x))
    distance = off(last(picture), numbers(theirs.decode_step(other)))
    assert distance < 1e-4
    record("3.5" if parts["transformer"].config["qk_norm"] else "3", "KerasHub preset", distance)


def test_bfloat16_and_shards(small: Path, tmp_path: Path) -> None:
    """HDF5 has no bfloat16; Keras stores it as two opaque bytes. Large presets come in several files."""
    shutil.copytree(small, tmp_path / "many")
    (tmp_path / "many" / "model.weights.h5").unlink()
    places: dict[str, list[str]] = {}
    with h5py.File(small / "model.weights.h5") as whole:
        groups = [f"layers/{name}" for name in whole["layers"]]
        for number in range(2):
            name = f"model_{number:05}.weights.h5"
            with h5py.File(tmp_path / "many" / name, "w") as shard:
                for group in groups[number::2]:
                    copied(whole[group], shard.create_group(group))
                    places[f"/{group}/vars"] = [name]
    (tmp_path / "many" / "model.weights.json").write_text(json.dumps({"weight_map": places}))
    plain, halved = (loading.load(folder).weights() for folder in (small, tmp_path / "many"))
    assert plain.keys() == halved.keys()
    for name, tensor in halved.items():
        assert torch.equal(tensor.float(), plain[name].bfloat16().float()), name


def copied(group: h5py.Group, to: h5py.Group) -> None:
    for name, child in group.items():
        if isinstance(child, h5py.Group):
            copied(child, to.create_group(name))
        else:
            bits = torch.from_numpy(child[()]).bfloat16().view(torch.int16).numpy()
            to.create_dataset(name, data=bits.view("V2")).attrs["dtype"] = "bfloat16"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "preset"
    backbone(0).save_to_preset(str(folder))
    return folder


def spoil(folder: Path, how: str) -> None:
    path = folder / "model.weights.h5"
    place = "layers/mm_di_t/layers/dense/vars"
    if how == "cut":
        os.truncate(path, path.stat().st_size - 50_000)
    elif how == "noise":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + random.Random(0).randbytes(5000))
    elif how == "pickle":
        path.write_bytes(b"\x80\x04K\x01.")
    else:
        with h5py.File(path, "r+") as held:
            group = held[place]
            if how == "missing":
                del group["1"]
            elif how == "shape":
                kernel = group["0"][()]
                del group["0"]
                group["0"] = kernel[:-1]
            elif how == "extra":
                held["layers/other/vars/0"] = np.zeros(3)
            elif how == "huge":
                del group["0"]
                group.create_dataset("0", shape=(1 << 40, 1 << 10), dtype="f4")
            elif how == "packed":
                kernel = group["0"][()]
                del group["0"]
                group.create_dataset("0", data=kernel, compression="gzip")
            elif how == "dtype":
                del group["1"]
                group["1"] = np.array([b"text"] * 4)
            elif how == "link":
                del group["0"]
                group["0"] = h5py.ExternalLink("/etc/hostname", "/x")
            elif how == "soft":
                del group["0"]
                group["0"] = h5py.SoftLink("/layers")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", "truncated|behind the file"), ("noise", "not a sound h5"), ("pickle", "not a sound h5"),
        ("missing", "context_embedder.bias"), ("shape", "context_embedder.weight"), ("extra", "other"),
        ("huge", "dense/vars/0"), ("packed", "one piece"), ("dtype", "unknown dtype"),
        ("link", "link"), ("soft", "link"),
    ],
)  # fmt: skip
def test_spoiled(small: Path, tmp_path: Path, how: str, said: str) -> None:
    shutil.copytree(small, tmp_path / "bad")
    spoil(tmp_path / "bad", how)
    with pytest.raises(CheckpointError, match=said):
        loading.load(tmp_path / "bad")


@pytest.mark.parametrize(
    "change", [{"mmdit_num_heads": 0}, {"vae": None}, {"t5": {"config": {}}}, {"mmdit_num_layers": "three"}]
)
def test_wrong_configuration(small: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    shutil.copytree(small, tmp_path / "bad")
    said = json.loads((tmp_path / "bad" / "config.json").read_text())
    said["config"] |= change
    (tmp_path / "bad" / "config.json").write_text(json.dumps(said))
    with pytest.raises(CheckpointError, match="describes no Stable Diffusion 3"):
        loading.load(tmp_path / "bad")


@pytest.mark.parametrize("name", ["../model.weights.h5", "/etc/passwd", "weights.bin"])
def test_index_that_points_elsewhere(small: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(small, tmp_path / "bad")
    (tmp_path / "bad" / "model.weights.h5").unlink()
    (tmp_path / "bad" / "model.weights.json").write_text(json.dumps({"weight_map": {"/x/vars": [name]}}))
    with pytest.raises(CheckpointError, match="out of its folder"):
        keras.weights(tmp_path / "bad")


def test_a_preset_becomes_a_folder_of_diffusers(small: Path, tmp_path: Path) -> None:
    """Every weight, through a preset of ours and a single file as well."""
    folder = convert(small, tmp_path / "folder", "diffusers")
    convert(small, tmp_path / "ours")
    single = convert(tmp_path / "ours", tmp_path / "single", "single-file")
    wanted = networks.tensors(TextToImage.from_preset(small).family.networks())
    for place in (folder, single):
        entries = checkpoints.find(place, config=tmp_path / "ours").recipe.entries
        assert entries.keys() == wanted.keys()
        found = {name: torch.empty(entry.shape) for name, entry in entries.items()}
        safetensors.fill(entries, found)
        for name, tensor in wanted.items():
            assert torch.equal(found[name], tensor.detach().float()), name
