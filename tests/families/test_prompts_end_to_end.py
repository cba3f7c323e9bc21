"""A diffusers folder, the command line, and a replay: everything about texts at once."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from pictura import TextToImage
from pictura.cli import main
from pipelines import pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model") / "sd"
    pipeline("sd1", 1).save_pretrained(place)
    return place


def test_weights_words_and_chunks_are_replayed(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))
    width = json.loads((folder / "text_encoder" / "config.json").read_text())["hidden_size"]
    file, out = tmp_path / "tree-style.safetensors", tmp_path / "out.png"
    safetensors.torch.save_file({"emb_params": torch.ones(2, width)}, file)
    prompt = "a (red:1.4) {cat|dog} BREAK tree-style " + "on a tree " * 60
    status = main([
        "generate", prompt, "--negative", "[blue] tree-style", "--model", str(folder), "--seed", "5",
        "--steps", "2", "--size", "32x32", "--embedding", str(file), "--style", "ink",
        "--out", str(out), "--json", "--no-show",
    ])  # fmt: skip
    assert status == 0
    request = json.loads(capsys.readouterr().out)["request"]
    assert request["options"]["template"] == prompt and request["options"]["prompt_syntax"] == "a1111"
    assert request["options"]["negative_template"] == "[blue] tree-style"
    (record,) = request["options"]["embeddings"]
    assert record["path"] == str(file) and len(record["sha256"]) == 64
    assert main(["replay", str(out), "--check"]) == 0

    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    capsys.readouterr()
    assert main(["replay", str(out), "--check"]) == 2
    assert "another file" in capsys.readouterr().err


def test_the_same_bits_alone_and_in_company(folder):
    model = TextToImage.from_preset(folder)
    prompts = ["a (red:1.4) cat", "two dogs " * 50, "a tree BREAK (sky:0.5)", "a cat"]
    settings = {"num_steps": 2, "size": (32, 32), "seed": 3, "guidance_scale": 4.0}
    together = model.generate(prompts, **settings)
    fresh = TextToImage.from_preset(folder)
    for n, prompt in enumerate(prompts):
        alone = fresh.generate(prompt, **{**settings, "seed": 3 + n})
        assert alone.image.tobytes() == together[n].image.tobytes()
    plain = model.generate(prompts[0], prompt_syntax="plain", **settings)
    assert plain.image.tobytes() != together[0].image.tobytes()
