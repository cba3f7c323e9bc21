"""Bad input: one sentence, the same from Python and on the command line, before any long work."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import pictura
from pictura.cli.app import run
from pictura.errors import CheckpointError, FileError, ParameterError, PicturaError

ROOT = Path(__file__).parents[1]
TOY = ROOT / "tests" / "toy" / "pictura_toy" / "weights"

# parameter, what Python gives, what the command line gives, part of the sentence that says what is possible
CASES: list[tuple[str, dict[str, Any], list[str], str]] = [
    ("prompt", {"inputs": "x" * 100_000}, ["x" * 100_000], "at most 10,000"),
    ("prompt", {"inputs": "cat \udcff"}, ["cat \udcff"], "well-formed Unicode"),
    ("prompt", {"inputs": "cat \0"}, ["cat \0"], "remove it"),
    ("negative_prompt", {"negative_prompts": "\0"}, ["--negative", "\0"], "remove it"),
    ("size", {"size": "0x0"}, ["--size", "0x0"], "1..8192"),
    ("size", {"size": "63"}, ["--size", "63"], "WIDTHxHEIGHT"),
    ("size", {"size": "1000000x1000000"}, ["--size", "1000000x1000000"], "1..8192"),
    ("num_steps", {"num_steps": 0}, ["--steps", "0"], "1..1000"),
    ("num_steps", {"num_steps": -3}, ["--steps", "-3"], "1..1000"),
    ("num_steps", {"num_steps": 1001}, ["--steps", "1001"], "1..1000"),
    ("num_steps", {"num_steps": 1.5}, ["--steps", "1.5"], "whole number"),
    ("guidance_scale", {"guidance_scale": math.nan}, ["--guidance", "nan"], "finite"),
    ("guidance_scale", {"guidance_scale": math.inf}, ["--guidance", "inf"], "finite"),
    ("guidance_scale", {"guidance_scale": "much"}, ["--guidance", "much"], "finite"),
    ("seed", {"seed": -1}, ["--seed", "-1"], "0..2^63-1"),
    ("seed", {"seed": 2**63}, ["--seed", str(2**63)], "0..2^63-1"),
    ("seed", {"seed": "x"}, ["--seed", "x"], "0..2^63-1"),
    ("seed", {"seed": 1.5}, ["--seed", "1.5"], "0..2^63-1"),
]
# These need to know the model.
MODEL_CASES: list[tuple[str, dict[str, Any], list[str], str]] = [
    ("sampler", {"sampler": "heum"}, ["--sampler", "heum"], "did you mean 'heun'"),
    ("schedule", {"schedule": "karas"}, ["--option", "schedule=karas"], "did you mean 'karras'"),
    ("size", {"size": "64x64"}, ["--size", "64x64"], "it can use"),
    ("tint", {"tint": 7}, ["--option", "tint=7"], "-1..1"),
    ("gamma", {"gamma": 7}, ["--option", "gamma=7"], "it can use"),
]


def command(arguments: list[str]) -> list[str]:
    prompt = [] if arguments[0].startswith(("x", "cat")) else ["red"]
    return ["generate", *prompt, *arguments, "--model", "toy"]


@pytest.fixture(scope="module")
def model() -> pictura.TextToImage:
    return pictura.TextToImage.from_preset("toy")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error, and nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.endswith("\n") and err.count("\n") == 1
    assert len(err) < 500
    return err.removeprefix("error: ").rstrip("\n")


@pytest.mark.parametrize(("parameter", "more", "arguments", "allowed"), CASES + MODEL_CASES)
def test_python_and_the_command_line_say_the_same(
    model: pictura.TextToImage,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parameter: str,
    more: dict[str, Any],
    arguments: list[str],
    allowed: str,
) -> None:
    from pictura_toy.family import Toy

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("work began before the input was checked")

    monkeypatch.setattr(Toy, "evaluate", refuse)
    with pytest.raises(ParameterError) as caught:
        model.generate(**{"inputs": "red", **more})
    assert caught.value.parameter == parameter
    assert allowed in str(caught.value)
    assert run(command(arguments)) == 2
    assert told(capsys) == str(caught.value)
    assert list(here.iterdir()) == []


def test_what_needs_no_model_is_told_before_torch_is_loaded() -> None:
    """One fresh process for all of them; torch alone would take seconds."""
    code = (
        "import json, sys; from pictura.cli.app import run\n"
        "print(json.dumps([run(argv) for argv in json.load(sys.stdin)] + ['torch' in sys.modules]))"
    )
    orders = [command(arguments) for _, _, arguments, _ in CASES]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "toy")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(orders),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [2] * len(orders) + [False]
    assert done.stderr.count("\n") == len(orders)


CODE = "import sys; from pictura.cli import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([b"generate", b"caf\xe9"], b""),  # Latin-1 in a UTF-8 terminal
        ([b"generate", b"--prompts", b"-"], b"red\0\n"),
        ([b"generate", b"--prompts", b"-"], b"\xff\xfe\n"),
        ([b"generate", b"red", b"--steps", b"0"], b""),
        ([b"inspect", b"missing\xff.png"], b""),
        ([b"generate"], b""),
        ([b"paint"], b""),
    ],
)
def test_a_real_process(tmp_path: Path, arguments: list[bytes], given: bytes) -> None:
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-c", CODE.encode(), *arguments],
        input=given,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == b"" and done.stderr.startswith(b"error: ") and done.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_empty_prompt_is_allowed_and_says_so(
    here: Path, model: pictura.TextToImage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "unconditional" in " ".join(model.generate("", seed=1).notes)
    assert run(["generate", "", "--model", "toy", "--seed", "1", "--json"]) == 0
    assert "unconditional" in capsys.readouterr().err


def test_unknown_words_are_noted(
    here: Path, model: pictura.TextToImage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any("zeppelin" in note for note in model.generate("red zeppelin", seed=1).notes)
    assert run(["generate", "red zeppelin", "--model", "toy", "--seed", "1"]) == 0
    assert "zeppelin" in capsys.readouterr().err


# The built-in model


@pytest.fixture(scope="module")
def scenes() -> pictura.TextToImage:
    return pictura.TextToImage.from_preset("scenes")


@pytest.mark.parametrize(
    ("parameter", "more", "allowed"),
    [
        ("size", {"size": "63x63"}, "128x128"),
        ("size", {"size": (8192, 8192)}, "128x128"),
        ("sampler", {"sampler": "heum"}, "did you mean 'heun'"),
        ("schedule", {"schedule": "karas"}, "did you mean 'karras'"),
        ("churn", {"churn": 1}, "can use"),
    ],
)
def test_what_scenes_cannot_do(
    scenes: pictura.TextToImage, parameter: str, more: dict[str, Any], allowed: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        scenes.generate("a cat", **more)
    assert caught.value.parameter == parameter and allowed in str(caught.value)


def test_what_scenes_notes(scenes: pictura.TextToImage) -> None:
    picture, empty = scenes.generate(["a cat and a flibbertigibbet", ""], seed=1, num_steps=1)
    assert any("flibbertigibbet" in note for note in picture.notes)
    assert any("unconditional" in note for note in empty.notes)


# Files


@pytest.mark.parametrize("verb", ["inspect", "replay"])
@pytest.mark.parametrize("content", [None, b"", b"hello", b"\x89PNG\r\n\x1a\n", pickle.dumps(print)])
def test_a_file_that_is_no_picture(
    here: Path, capsys: pytest.CaptureFixture[str], verb: str, content: bytes | None
) -> None:
    if content is not None:
        Path("a.png").write_bytes(content)
    with pytest.raises(FileError) as caught:
        pictura.Picture.open("a.png")
    assert run([verb, "a.png"]) == 2
    assert told(capsys) == str(caught.value)


def test_a_truncated_picture(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = pictura.Picture(image=Image.effect_noise((64, 64), 9), request=pictura.Request(prompt="", seed=1))
    Path("a.png").write_bytes(whole.to_bytes()[:-1000])
    assert run(["replay", "a.png", "--check"]) == 2
    assert "damaged" in told(capsys)


@pytest.mark.parametrize("out", ["a.gif", "taken.png", "missing/a.png", "taken.png/a.png"])
def test_a_place_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str], out: str) -> None:
    Path("taken.png").write_bytes(b"mine")
    assert run(["generate", "red", "--model", "toy", "--out", out]) == 2
    assert Path(out).name.split(".")[0] in told(capsys) or "gif" in out
    assert Path("taken.png").read_bytes() == b"mine" and len(list(here.rglob("*"))) == 1


class Canary:
    """Unpickling it is seen."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


def config(folder: Path, **changed: Any) -> None:
    values = json.loads((TOY / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changed}))


def weights(folder: Path, change: Callable[[bytes], bytes]) -> None:
    config(folder)
    (folder / "model.safetensors").write_bytes(change((TOY / "model.safetensors").read_bytes()))


def tensors(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config(folder)
    values = load_file(TOY / "model.safetensors")
    change(values)
    save_file(values, folder / "model.safetensors")


def header(values: object, data: bytes = b"") -> bytes:
    text = values if isinstance(values, bytes) else json.dumps(values).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def first(values: dict[str, Any], change: Callable[[Any], Any]) -> None:
    name = sorted(values)[0]
    values[name] = change(values[name])


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty folder": lambda at: None,
    "no weights": config,
    "config is no JSON": lambda at: (at / "config.json").write_text("{"),
    "config is a list": lambda at: (at / "config.json").write_text("[]"),
    "config is a pickle": lambda at: (at / "config.json").write_bytes(pickle.dumps(Canary())),
    "family unknown": lambda at: config(at, family="toi"),
    "family is a path": lambda at: config(at, family="../../os"),
    "architecture wrong": lambda at: config(at, architecture={"width": "wide"}),
    "architecture huge": lambda at: weights(at, bytes) or config(at, architecture={"width": 2**40}),
    "weights are a pickle": lambda at: weights(at, lambda _: pickle.dumps(Canary())),
    "only a pickle": lambda at: config(at) or (at / "pytorch_model.bin").write_bytes(pickle.dumps(Canary())),
    "weights are empty": lambda at: weights(at, lambda _: b""),
    "weights end in the header": lambda at: weights(at, lambda whole: whole[:40]),
    "weights end early": lambda at: weights(at, lambda whole: whole[:-1]),
    "weights go on": lambda at: weights(at, lambda whole: whole + b"\0"),
    "header of 2^63 bytes": lambda at: weights(at, lambda _: struct.pack("<Q", 2**63) + b"{}"),
    "header is no JSON": lambda at: weights(at, lambda _: header(b"{" * 1000)),
    "deep header": lambda at: weights(at, lambda _: header(b"[" * 100_000)),
    "negative shape": lambda at: weights(at, lambda _: header({"a": entry([-1, -2], 0, 8)}, bytes(8))),
    "shape of 2^80": lambda at: weights(at, lambda _: header({"a": entry([2**40, 2**40], 0, 8)}, bytes(8))),
    "tensors overlap": lambda at: weights(
        at, lambda _: header({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12))
    ),
    "a tensor is missing": lambda at: tensors(at, lambda values: values.pop(sorted(values)[0])),
    "a tensor too many": lambda at: tensors(at, lambda values: values.update(extra=torch.zeros(3))),
    "a wrong shape": lambda at: tensors(at, lambda values: first(values, lambda a: a.flatten()[:-1].clone())),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_one_sentence(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    folder = here / "broken"
    folder.mkdir()
    BROKEN[name](folder)
    before = sorted(here.rglob("*"))
    start = time.process_time()
    with pytest.raises(PicturaError) as caught:
        pictura.TextToImage.from_preset("./broken")
    assert time.process_time() - start < 10
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    if name.startswith("a "):
        assert isinstance(caught.value, CheckpointError)
        assert sorted(load_file(TOY / "model.safetensors"))[0] in message or "extra" in message
    assert run(["generate", "red", "--model", "./broken"]) == caught.value.exit_code
    assert told(capsys) == message
    assert sorted(here.rglob("*")) == before  # nothing was unpickled, nothing half-written


@pytest.mark.parametrize("preset", ["toi", "", "no/where", "ftp://a/b", "hf://nobody", "a\0b", "\ud800"])
def test_a_preset_that_does_not_exist(here: Path, capsys: pytest.CaptureFixture[str], preset: str) -> None:
    with pytest.raises(PicturaError) as caught:
        pictura.TextToImage.from_preset(preset)
    assert caught.value.exit_code == 2
    assert run(["generate", "red", "--model", preset]) == 2
    assert told(capsys) == str(caught.value)


@pytest.mark.parametrize(
    "order",
    [
        "data scenes --count x --out a",
        "data scenes --count -1 --out a",
        "data scenes --count 2 --split all --out a",
        "data scenes --count 2 --format gif --out a",
        "data scenes --count 2 --shard 0 --out a",
        "generate red --model toy -n 0",
        "generate red --model toy -n x",
        "generate red --model toy --option tint",
        "generate red --model toy --lora a.safetensors:x",
        "generate --prompts missing.txt --model toy",
        "compare red --models toy,toi",
        "train missing.toml",
        "models show toi",
    ],
)
def test_other_commands(here: Path, capsys: pytest.CaptureFixture[str], order: str) -> None:
    assert run(order.split()) == 2
    told(capsys)
    assert list(here.iterdir()) == []
