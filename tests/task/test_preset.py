"""Presets: found by name, folder or handle; checked before they are read; saved to the bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pictura
from pictura import (
    CheckpointError,
    FileError,
    ParameterError,
    PicturaError,
    PresetError,
    TextToImage,
    families,
    loading,
    presets,
)
from pictura.formats import networks, preset, writing

TOY = Path(__file__).parents[1] / "toy" / "pictura_toy" / "weights"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the toy that may be damaged."""
    return Path(shutil.copytree(TOY, tmp_path / "toy"))


def test_a_name_a_folder_and_a_path_are_the_same_model(folder: Path) -> None:
    found = [TextToImage.from_preset(given) for given in ("toy", str(folder), folder)]
    pictures = [model.generate("red", seed=1) for model in found]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    assert len({model.digest for model in found}) == 1
    assert [model.name for model in found] == ["toy", str(folder), str(folder)]


def test_the_subclass_is_inferred_and_takes_its_own_family_only() -> None:
    model = TextToImage.from_preset("toy")
    kind = type(model)
    assert (
        kind is TextToImage.of("toy") and kind.__name__ == "ToyTextToImage" and issubclass(kind, TextToImage)
    )
    assert type(kind.from_preset("toy")) is kind
    assert set(kind.presets) == {"toy"} and "toy" in TextToImage.presets

    class Other(TextToImage):
        family_name = "other"

    with pytest.raises(PresetError, match="of family 'toy', not 'other'"):
        Other.from_preset("toy")
    with pytest.raises(PicturaError, match="family 'tooy' is unknown; did you mean 'toy'"):
        TextToImage.of("tooy")


def test_saving_and_loading_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    model = TextToImage.from_preset("toy")
    model.save_to_preset(tmp_path / "copy")
    again = TextToImage.from_preset(tmp_path / "copy")
    written = (tmp_path / "copy" / "model.safetensors").read_bytes()
    assert written == (TOY / "model.safetensors").read_bytes()  # bfloat16 again, as it came
    assert again.digest == model.digest
    for one, two in zip(model.backbone.parameters(), again.backbone.parameters(), strict=True):
        assert torch.equal(one, two)
    assert again.generate("red", seed=1).request.num_steps == 5
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert config["family"] == "toy" and config["architecture"] == {"width": 16}
    assert config["provenance"] == {"made": "random numbers, for tests"}
    card = (tmp_path / "copy" / "README.md").read_text()
    assert model.digest in card and "library_name: pictura" in card and "random numbers, for tests" in card


def test_weights_must_be_the_promised_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built_in = presets.presets()["gan-cls"]
    copy = shutil.copytree(presets.resolve("gan-cls").path, tmp_path / "copy")
    named = {"copy": replace(built_in, name="copy", folder=None, uri=str(copy))}
    monkeypatch.setattr(presets, "_own", named)
    assert TextToImage.from_preset("copy").digest == built_in.sha256
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(CheckpointError, match=f"'copy' have SHA-256 {found}, but {built_in.sha256} belongs"):
        TextToImage.from_preset("copy")
    assert TextToImage.from_preset(copy).digest == found  # a folder promises nothing


def test_every_built_in_preset_says_what_its_weights_are() -> None:
    for name, known in families.presets().items():
        if known.folder is not None and families.package(known.family).startswith("pictura."):
            assert known.sha256 is not None, name


def test_large_weights_are_digested_when_someone_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "SMALL", 1)
    asked = []
    digest = writing.digest
    monkeypatch.setattr(writing, "digest", lambda files: asked.append(files) or digest(files))
    model = TextToImage.from_preset("toy")
    assert not asked
    assert model.generate("red").model_digest == model.generate("blue").model_digest == digest(asked[0])
    assert len(asked) == 1


def test_nothing_is_overwritten_by_accident(tmp_path: Path) -> None:
    model = TextToImage.from_preset("toy")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for taken in ("file", "others"):
        for overwrite in (False, True):
            with pytest.raises(FileError, match="choose another name"):
                model.save_to_preset(tmp_path / taken, overwrite=overwrite)
    model.save_to_preset(tmp_path / "empty")
    with pytest.raises(FileError, match="exists already"):
        model.save_to_preset(tmp_path / "empty")
    with torch.no_grad():
        model.backbone["text"].weight.add_(1)  # type: ignore[operator,union-attr]
    model.save_to_preset(tmp_path / "empty", overwrite=True)
    assert TextToImage.from_preset(tmp_path / "empty").digest == model.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "others"]


def test_large_models_are_sharded(tmp_path: Path) -> None:
    model = TextToImage.from_preset("toy")
    live = networks.tensors(model.family.networks())
    weights = {name: tensor.detach() for name, tensor in live.items()}
    config = preset.read(TOY)
    preset.write(tmp_path / "sharded", config, weights, "", shard=10_000)
    assert len(list((tmp_path / "sharded").glob("model-*-of-*.safetensors"))) > 1
    again = TextToImage.from_preset(tmp_path / "sharded")
    assert np.array_equal(again.generate("red", seed=1), model.generate("red", seed=1))
    assert again.digest == writing.live_digest(weights, shard=10_000)


def test_random_weights() -> None:
    model = TextToImage.from_preset("toy", load_weights=False)
    assert model.digest != TextToImage.from_preset("toy").digest
    assert model.generate("red").request.num_steps == 5
    wide = TextToImage.from_preset("toy", load_weights=False, width=40)
    assert wide.backbone["text"].weight.shape == (64, 40)  # type: ignore[union-attr]
    with pytest.raises(ParameterError, match="did you mean 'width'"):
        TextToImage.from_preset("toy", load_weights=False, widht=40)
    with pytest.raises(ParameterError, match="load_weights=False"):
        TextToImage.from_preset("toy", width=40)


def test_dtype_and_device() -> None:
    full = TextToImage.from_preset("toy", device="cpu").generate("red", seed=1)
    for dtype in ("bfloat16", torch.bfloat16, "float64", "auto"):
        model = TextToImage.from_preset("toy", dtype=dtype)
        difference = np.asarray(model.generate("red", seed=1), float) - np.asarray(full, float)
        assert np.abs(difference).max() <= (0 if dtype == "float64" else 12)
    assert (
        next(TextToImage.from_preset("toy", dtype="bfloat16").backbone.parameters()).dtype == torch.bfloat16
    )
    for wrong in ({"dtype": "int4"}, {"dtype": 3}, {"device": "cup"}, {"device": 3.5}, {"device": "cuda:99"}):
        with pytest.raises(ParameterError) as caught:
            TextToImage.from_preset("toy", **wrong)  # type: ignore[arg-type]
        assert caught.value.parameter in wrong and "\n" not in str(caught.value)


def test_registered_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "_own", {})
    monkeypatch.chdir(folder.parent)
    presets.register("mine", "toy")  # a folder here, and a name already: paths are meant
    presets.register("mine", "toy")  # saying it twice is no harm
    monkeypatch.chdir("/")
    assert TextToImage.from_preset("mine").name == "mine"
    assert "mine" in TextToImage.presets and "mine" in presets.names()
    for name in ("mine", "toy"):
        with pytest.raises(PresetError, match="exists already"):
            presets.register(name, "/elsewhere")
    for bad in ("a/b", "hf://x", "", ".", "x" * 200, None, "nul\0"):
        with pytest.raises(PresetError, match="is not possible"):
            presets.register(bad, folder)  # type: ignore[arg-type]
    shutil.rmtree(folder)
    with pytest.raises(PresetError, match="has no folder"):
        TextToImage.from_preset("mine")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("toi", "did you mean 'toy'"),
        ("no/such/folder", "is no folder"),
        ("", "is not possible"),
        ("nul\0", "is not possible"),
        ("gopher://gpt", "'gopher' is unknown"),
        ("\ud800", "is unknown"),
    ],
)
def test_presets_that_are_not_there(given: str, said: str) -> None:
    with pytest.raises(PresetError, match=said) as caught:
        TextToImage.from_preset(given)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def edited(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_configurations_that_make_no_sense(folder: Path) -> None:
    for changes, said in [
        ({"family": "tooy"}, "unknown family 'tooy'; did you mean 'toy'"),
        ({"family": None}, "names no family"),
        ({"architecture": [1]}, "a JSON object belongs there"),
        ({"architecture": {"width": "wide"}}, "give a whole number"),
        ({"architecture": {"depth": 3}}, "may have 'width' only"),
    ]:
        edited(folder, family="toy")
        edited(folder, **changes)
        with pytest.raises(PresetError, match=said):
            TextToImage.from_preset(folder)
        shutil.copy(TOY / "config.json", folder)
    for text in ("", "{", "[]", '{"family": "toy", "family": "toy"}', "\ufeff"):
        (folder / "config.json").write_text(text)
        with pytest.raises(PresetError):
            TextToImage.from_preset(folder)
    (folder / "config.json").unlink()
    with pytest.raises(PresetError, match=r"no config\.json"):
        TextToImage.from_preset(folder)


def test_weights_that_do_not_fit_are_told_at_once(folder: Path) -> None:
    path = folder / "model.safetensors"
    edited(folder, architecture={"width": 2**33})  # would take terabytes
    with pytest.raises(CheckpointError, match=r"tensor 'denoiser\.enter\.bias' .* needs \[8589934592\]"):
        TextToImage.from_preset(folder)
    shutil.copy(TOY / "config.json", folder)
    weights = load_file(path)
    save_file({name: t for name, t in weights.items() if name != "text.weight"}, path)
    with pytest.raises(CheckpointError, match=r"tensor 'text\.weight' is missing"):
        TextToImage.from_preset(folder)
    save_file({**weights, "aaa": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="tensor 'aaa' .* belongs to no part"):
        TextToImage.from_preset(folder)
    path.unlink()
    with pytest.raises(FileError, match="has no model"):
        TextToImage.from_preset(folder)
    assert TextToImage.from_preset(folder, load_weights=False).generate("red").image.size == (8, 8)


def test_links_out_of_the_folder_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(TOY / "model.safetensors")
    with pytest.raises(CheckpointError, match="link that leaves"):
        TextToImage.from_preset(folder)
    os.unlink(folder / "config.json")
    (folder / "config.json").symlink_to(TOY / "config.json")
    with pytest.raises(PresetError, match="link that leaves"):
        TextToImage.from_preset(folder)


def test_summary_backbone_and_preprocessor() -> None:
    model = TextToImage.from_preset("toy")
    lines: list[str] = []
    model.summary(lines.append)
    total = sum(parameter.numel() for parameter in model.backbone.parameters())
    assert f"{total:,} parameters" in lines[-1] and any("denoiser.enter" in line for line in lines)
    assert set(model.backbone) == {"text", "denoiser"}
    batch = model.preprocessor([{"images": np.zeros((8, 8, 3), np.uint8), "prompts": "red"}])
    assert batch["image"].shape == (1, 3, 8, 8) and batch["image"].min() == -1
    assert repr(model) == "<ToyTextToImage 'toy'>"
    assert pictura.TextToImage is TextToImage


def test_loading_and_drawing_never_wait_for_torchs_compiler() -> None:
    """Random numbers on the meta device would import it, which takes longer than everything else."""
    program = """
import sys
from pictura import TextToImage
TextToImage.from_preset("scenes").generate("a cat", seed=1, num_steps=1)
print(*({"torch._dynamo", "sympy", "pictura.training.trainer", "datasets"} & set(sys.modules)))
"""
    source = str(Path(pictura.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("name", [name for name, preset in families.presets().items() if preset.sha256])
def test_built_in_models_draw_nearly_the_same_in_half_precision(name: str) -> None:
    full, half = (
        np.asarray(TextToImage.from_preset(name, dtype=dtype).generate("a cat", seed=1), float)
        for dtype in (None, "bfloat16")
    )
    assert np.abs(full - half).mean() < 2  # of 255


def test_a_load_takes_the_memory_of_the_model_and_no_more(tmp_path: Path) -> None:
    program = f"""
import resource, sys, torch
from pathlib import Path
from pictura import TextToImage
from pictura.formats import networks, preset
from pictura_toy.family import Toy
if sys.argv[1] == "write":
    toy = Toy(40_000)
    weights = {{name: tensor.detach() for name, tensor in networks.tensors(toy.networks()).items()}}
    config = preset.Config(family="toy", architecture=toy.config())
    preset.write(Path({str(tmp_path / "large")!r}), config, weights, "")
else:
    TextToImage.from_preset("toy")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    TextToImage.from_preset({str(tmp_path / "large")!r})
    print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""
    paths = [str(Path(pictura.__file__).parents[1]), str(TOY.parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    for step in ("write", "load"):
        command = [sys.executable, "-c", program, step]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    size = (tmp_path / "large" / "model.safetensors").stat().st_size
    assert size > 90_000_000 and int(done.stdout) < 1.1 * size
