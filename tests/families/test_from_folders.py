"""Folders as people have them, through the public interface and the command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pictura import TextToImage
from pictura.cli import main
from pictura.errors import ParameterError
from pictura.families.latent import sizes
from pictura.picture import Picture, read_metadata
from pipelines import KINDS, pipeline

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_checkpoint.py"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(kind):
        if kind not in made:
            pipe = pipeline(kind, 1)
            place = tmp_path_factory.mktemp(kind) / kind
            pipe.save_pretrained(place)
            made[kind] = pipe, place
        return made[kind]

    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_draws_what_its_pipeline_draws(folders, kind):
    pipe, folder = folders(kind)
    model = TextToImage.from_preset(folder)
    picture = model.generate("a red cat on a tree", seed=7, num_steps=4, size=(48, 32), progress=False)
    call = {"guidance_scale": picture.request.guidance_scale}
    if kind == "flux-schnell":
        call["max_sequence_length"] = 256
    theirs = pipe(
        "a red cat on a tree",
        num_inference_steps=4,
        width=48,
        height=32,
        generator=torch.Generator().manual_seed(7),
        output_type="np",
        **call,
    ).images[0]
    assert np.abs(np.asarray(picture, float) - theirs * 255).max() < 0.6


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3", "flux-dev"])
def test_the_script_compares_real_weights(folders, kind, capsys):
    _, folder = folders(kind)
    spec = importlib.util.spec_from_file_location("check_checkpoint", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    status = script.main([str(folder), "--steps", "3", "--size", "48x32", "--json"])
    off = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert status == 0, off
    assert set(off) == {"prompt", "network", "encode", "decode", "picture"} and max(off.values()) < 1e-4


def test_a_picture_from_a_picture_on_the_command_line_and_its_replay(folders, tmp_path, capsys):
    _, folder = folders("sd1")
    source, mask, out = tmp_path / "in.png", tmp_path / "mask.png", tmp_path / "out.png"
    Image.effect_noise((48, 32), 90).convert("RGB").save(source)
    Image.linear_gradient("L").resize((48, 32)).save(mask)
    given = ["generate", "a red cat", "--model", str(folder), "--seed", "3", "--steps", "4", "--no-show"]
    conditioning = ["--image", str(source), "--mask", str(mask), "--strength", "0.6"]
    assert main([*given, *conditioning, "--out", str(out)]) == 0
    request = read_metadata(out).request
    assert request.size == (48, 32) and request.options["strength"] == 0.6
    assert request.options["image"]["path"] == str(source) and len(request.options["mask"]["sha256"]) == 64
    source.unlink()
    assert main(["replay", str(out), "--check"]) == 0
    assert main([*given, "--aspect", "3:2", "--out", str(tmp_path / "wide.png")]) == 0
    assert Picture.open(tmp_path / "wide.png").image.size == sizes.best(1.5, 32, 2)
    capsys.readouterr()
    assert main([*given, "--mask", str(mask)]) == 2
    assert "mask needs a picture" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3", "flux-dev"])
def test_half_precision_and_a_preset_of_its_own(folders, kind, tmp_path):
    _, folder = folders(kind)
    values = {"seed": 7, "num_steps": 4, "size": (48, 32), "progress": False}
    models = [TextToImage.from_preset(folder, dtype=dtype) for dtype in ("float32", "bfloat16")]
    full, half = (np.asarray(model.generate("a red cat", **values), float) for model in models)
    assert 0 < np.abs(full - half).mean() < 6  # of 255
    models[0].save_to_preset(tmp_path / "saved")
    again = TextToImage.from_preset(tmp_path / "saved").generate("a red cat", **values)
    assert np.array_equal(np.asarray(again), full)


def test_many_ways_to_give_a_picture(folders, tmp_path):
    _, folder = folders("sd1")
    model = TextToImage.from_preset(folder)
    source = tmp_path / "in.png"
    Image.effect_noise((32, 32), 90).convert("RGB").save(source)
    image = Image.open(source)
    ways = [source, str(source), source.read_bytes(), image, np.asarray(image)]
    pictures = [
        np.asarray(model.generate("a cat", seed=1, num_steps=3, image=way, progress=False)) for way in ways
    ]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    with pytest.raises(ParameterError, match="no picture"):
        model.generate("a cat", image=b"no picture")


def test_shapes_by_name(folders):
    _, folder = folders("flux-dev")
    model = TextToImage.from_preset(folder)
    wide = model.generate("a cat", seed=1, num_steps=1, size="2:1", progress=False)
    assert wide.image.size == wide.request.size and wide.image.width > wide.image.height
    with pytest.raises(ParameterError, match="cannot use aspect"):
        TextToImage.from_preset("scenes").generate("a cat", size="3:2")


def loss_of(model, data):
    """The loss over the same times and noises."""
    family = model.family
    batch = family.prepare(data * 8)
    with torch.no_grad():
        return float(family.loss(batch, torch.Generator().manual_seed(0))[family.body])


@pytest.mark.parametrize("kind", ["sd2", "sdxl", "sd3", "flux-dev"])
def test_fit_trains_the_network_that_denoises(folders, kind):
    _, folder = folders(kind)
    torch.manual_seed(0)  # SD3 starts from weights of its own
    model = TextToImage.from_preset(folder, load_weights=kind != "sd3")
    if kind == "flux-dev":
        model.family.architecture["size"] = 32
    before = {name: p.detach().clone() for name, p in model.backbone.named_parameters()}
    picture = Image.effect_noise((40, 32), 90).convert("RGB")
    data = [{"images": picture, "prompts": "a red cat"}] * 4
    first = loss_of(model, data)
    model.compile(learning_rate=2e-3)
    history = model.fit(data, epochs=12, batch_size=2)
    assert len(history.history["loss"]) == 12 and all(np.isfinite(history.history["loss"]))
    assert loss_of(model, data) < 0.9 * first
    body = model.family.body
    for name, parameter in model.backbone.named_parameters():
        assert (name.partition(".")[0] == body) or torch.equal(parameter, before[name])
    moved = [n for n, p in model.backbone.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > 20 and all(name.startswith(body) for name in moved)
