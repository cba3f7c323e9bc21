"""From the files people have to a picture and back: generate, replay and convert on the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pictura import CheckpointError, TextToImage
from pictura.cli.app import run
from pictura.converting import convert

Written = Callable[[str], Path]
NAMES = ("sd1", "sdxl", "sd3", "flux")


@pytest.mark.parametrize("name", NAMES)
def test_generate_and_replay(
    name: str, written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "cat.png"
    shared = ["--dtype", "float32", "--no-show"]
    size = ["--size", "32x48"]
    asked = [
        "generate",
        "a cat",
        "--model",
        str(written(name)),
        "--steps",
        "2",
        "--seed",
        "5",
        *size,
        *shared,
    ]
    assert run([*asked, "--out", str(picture)]) == 0, capsys.readouterr().err
    with Image.open(picture) as made:
        assert made.size == (32, 48)
    assert run(["replay", str(picture), "--check", *shared]) == 0
    assert "identical" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_form_of_a_model_draws_the_same(name: str, written: Written, tmp_path: Path) -> None:
    folder = written(name)
    convert(folder, tmp_path / "preset")
    single = convert(folder, tmp_path / "single", "single-file")
    forms = [(folder, None), (tmp_path / "preset", None), (single, folder), (single, tmp_path / "preset")]
    models = [TextToImage.from_preset(place, config=config) for place, config in forms]
    first, *others = [model.generate("a red cat", num_steps=2, seed=1, size=(32, 48)) for model in models]
    assert np.asarray(first).std() > 1
    for other in others:
        assert np.array_equal(first, other)
    again = TextToImage.from_preset(models[2].name)  # the name says where the rest came from
    assert np.array_equal(first, again.generate("a red cat", num_steps=2, seed=1, size=(32, 48)))


def test_saving_keeps_tokenizers(written: Written, tmp_path: Path) -> None:
    model = TextToImage.from_preset(written("sdxl"))
    model.save_to_preset(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_2.json"}
    again = TextToImage.from_preset(tmp_path / "saved")
    pictures = [one.generate("a red cat", num_steps=2, seed=1) for one in (model, again)]
    assert np.array_equal(*pictures)
    convert(tmp_path / "saved", tmp_path / "back", "diffusers")
    third = TextToImage.from_preset(tmp_path / "back").generate("a red cat", num_steps=2, seed=1)
    assert np.array_equal(third, pictures[0])


def test_a_file_that_lacks_something_says_what(written: Written, tmp_path: Path) -> None:
    single = convert(written("flux"), tmp_path / "flux", "single-file")
    with pytest.raises(CheckpointError, match="has no tokenizer and no tokenizer_2; give config=DIR"):
        TextToImage.from_preset(single)
    bare = Path(shutil.copytree(written("sd1"), tmp_path / "sd1"))
    shutil.rmtree(bare / "vae")
    with pytest.raises(CheckpointError, match="a stable_diffusion model, has no vae; give config=DIR"):
        TextToImage.from_preset(bare)
    assert (
        TextToImage.from_preset(bare, config=written("sd1")).generate("a cat", num_steps=1).image.width == 32
    )


def test_show_convert_and_pull_on_the_command_line(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(written("sd3"), tmp_path / "sd3"))
    shutil.rmtree(folder / "text_encoder_3")
    (folder / "README.md").write_text(
        "---\nlicense: other\nlicense_name: 'stability-community'\n---\n# A model\n"
    )
    assert run(["models", "show", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["family"] == "stable_diffusion_3" and facts["version"] == "3.5"
    assert facts["dtype"] == "float32" and facts["missing"] == ["text_encoder_3"]
    assert facts["licence"] == "stability-community" and facts["layout"] == "diffusers"
    assert facts["parameters"] == sum(facts["parts"].values()) == facts["bytes"] // 4 - _headers(folder) // 4
    target = tmp_path / "half.safetensors"
    asked = ["models", "convert", str(folder), str(target), "--to", "single-file", "--dtype", "float16"]
    assert run(asked) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert run(["models", "show", str(target), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["version"] == "3.5" and again["dtype"] == "float16"
    assert again["parameters"] == facts["parameters"]
    assert again["missing"] == ["text_encoder_3", "tokenizer", "tokenizer_2"]
    assert run(asked) == 2 and "exists already" in capsys.readouterr().err
    assert run(["models", "convert", str(folder), str(tmp_path / "x"), "--to", "ckpt"]) == 2


def _headers(folder: Path) -> int:
    """Bytes of the files that are no tensors: their headers."""
    total = 0
    for path in folder.glob("*/*.safetensors"):
        with open(path, "rb") as file:
            total += 8 + int.from_bytes(file.read(8), "little")
    return total
