"""`generate`, `replay`, `inspect` and `compare` draw with the toy family of `tests/toy`."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import pictura
from pictura.cli.app import run

ROOT = Path(__file__).parents[1]
PATH = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests" / "toy")])
CODE = "import sys; from pictura.cli import main; sys.exit(main())"
# A process started in the background ignores Ctrl-C, and so do its children.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    terminal = ("PICTURA_SHOW", "NO_COLOR", "TMUX", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID")
    kept = {name: value for name, value in os.environ.items() if name not in terminal}
    return {**kept, "PYTHONPATH": PATH, **more}


def drawn(prompt: str, **more: Any) -> np.ndarray:
    return np.asarray(pictura.TextToImage.from_preset("toy").generate(prompt, **more))


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_pictures_get_names_of_prompt_and_seed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "red square", "blue", "--model", "toy", "-n", "2", "--seed", "3"]) == 0
    out, err = capsys.readouterr()
    assert out.split() == ["red-square-3.png", "red-square-4.png", "blue-5.png", "blue-6.png"]
    assert err == ""
    np.testing.assert_array_equal(pixels("blue-5.png"), drawn("blue", seed=5))
    assert sorted(path.name for path in here.iterdir()) == sorted(out.split())  # and nothing half-written


def test_a_name_that_is_taken_is_left_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = ["generate", "red", "--model", "toy", "--seed", "1", "--out", "new/folder"]
    assert [run(order), run(order), run(order)] == [0, 0, 0]
    names = ["new/folder/red-1.png", "new/folder/red-1-2.png", "new/folder/red-1-3.png"]
    assert capsys.readouterr().out.split() == names


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_explicit_file_is_written_once(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(f"a{suffix}")
    order = ["generate", "red", "--model", "toy", "--out", str(file)]
    assert run([*order, "--seed", "1"]) == 0
    first = file.read_bytes()
    assert run([*order, "--seed", "2"]) == 2
    assert file.read_bytes() == first
    assert run([*order, "--seed", "2", "--overwrite"]) == 0
    assert pictura.Picture.open(file).request.seed == 2


def test_json_tells_everything_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "--model toy --seed 9 --steps 3 --guidance 1.5 --sampler heun --negative gray --json".split()
    extra = ["--option", "schedule=karras", "--option", "tint=0.25"]
    assert run(["generate", "red", "zeppelin", *arguments, *extra]) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["request"]["seed"] for line in lines] == [9, 10]
    assert lines[0]["request"] == {
        "prompt": "red",
        "negative_prompt": "gray",
        "seed": 9,
        "num_steps": 3,
        "guidance_scale": 1.5,
        "sampler": "heun",
        "schedule": "karras",
        "options": {"tint": 0.25},
        "model": "toy",
    }
    assert lines[1]["notes"] and "zeppelin" in lines[1]["notes"][0]
    assert f"note: {lines[1]['notes'][0]}" in err
    assert len(lines[0]["model_digest"]) == 64 and lines[0]["size"] == [8, 8]
    assert all(Path(line["file"]).exists() for line in lines)


def test_prompts_come_from_a_file_or_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "red\n\n  blue  \n"
    Path("prompts.txt").write_text(text)
    order = ["generate", "--model", "toy", "--seed", "0", "--json", "--prompts"]
    assert run([*order, "prompts.txt"]) == 0
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert run([*order, "-"]) == 0
    requests = [json.loads(line)["request"] for line in capsys.readouterr().out.splitlines()]
    assert [request["prompt"] for request in requests] == ["red", "blue"] * 2
    assert requests[:2] == requests[2:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--sampler", "heum"], "did you mean 'heun'"),
        (["--size", "64x64"], "model 'toy' cannot use size"),
        (["--lora", "a.safetensors:0.5"], "cannot use lora"),
        (["--option", "tint=5"], "tint is 5"),
        (["--option", "tint=red"], "tint is 'red'; give a number"),
        (["--model", "toi"], "did you mean 'toy'"),
        (["--model", "nowhere/toy"], "no folder"),
    ],
)
def test_what_the_model_refuses_is_bad_input(
    arguments: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["generate", "red", "--model", "toy", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert words in err
    assert not list(here.iterdir())


def test_what_the_model_cannot_use_may_be_ignored_but_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "red", "--model", "toy", "--size", "64x64", "--no-strict", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["ignored"] == ["size"]
    assert "ignored: size" in err


def test_one_failure_leaves_its_neighbours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pictura_toy.family import Toy

    whole = Toy.run

    def fragile(self: Any, request: Any, note: Any) -> Any:
        if request.prompt == "green":
            raise pictura.EngineError("green is out of stock")
        return (yield from whole(self, request, note))

    monkeypatch.setattr(Toy, "run", fragile)
    assert run(["generate", "red", "green", "blue", "--model", "toy", "--seed", "1", "--json"]) == 1
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert {line["request"]["prompt"] for line in lines if "file" in line} == {"red", "blue"}
    assert [line["error"] for line in lines if "error" in line] == ["green is out of stock"]
    assert err == "failed: green is out of stock\n"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_replay_finds_the_same_pixels_whatever_the_batch(
    suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = pictura.TextToImage.from_preset("toy")
    pictures = model.generate(["red", "blue", "a green square", "black"], seed=5, sampler="euler_ancestral")
    pictures[2].save(f"a{suffix}")
    assert run(["replay", f"a{suffix}", "--check"]) == 0
    assert capsys.readouterr().out == f"identical: a{suffix}\n"


def test_replay_in_a_fresh_process() -> None:
    pictura.TextToImage.from_preset("toy").generate(["red", "blue"], seed=5)[1].save("a.png")
    done = subprocess.run(
        [sys.executable, "-c", CODE, "replay", "a.png", "--check"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "identical: a.png\n", "")


def test_replay_measures_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    picture = pictura.TextToImage.from_preset("toy").generate("red", seed=5)
    image = picture.image.copy()
    image.putpixel((3, 4), tuple(255 - v for v in image.getpixel((3, 4))))  # type: ignore[union-attr]
    from dataclasses import replace

    replace(picture, image=image, model_digest="0" * 64).save("a.png")
    assert run(["replay", "a.png", "--check"]) == 1
    out, err = capsys.readouterr()
    assert re.match(r"different: a.png: 1 of 64 pixels differ, by at most \d+ of 255\n", out)
    assert "the model has changed: 000" in err
    assert run(["replay", "a.png", "--check", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["identical"] is False


def test_replay_draws_again(capsys: pytest.CaptureFixture[str]) -> None:
    picture = pictura.TextToImage.from_preset("toy").generate("red", seed=5)
    picture.save("a.png")
    assert run(["replay", "a.png"]) == 0
    again = capsys.readouterr().out.strip()
    assert again == "red-5.png"
    assert Path(again).read_bytes() == Path("a.png").read_bytes()


def test_replay_wants_a_picture_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save("plain.png")
    assert run(["replay", "plain.png", "--check"]) == 2
    assert "does not say how Pictura made it" in capsys.readouterr().err


def test_inspect_reads_our_own(capsys: pytest.CaptureFixture[str]) -> None:
    pictura.TextToImage.from_preset("toy").generate("red\nsquare", seed=5).save("a.png")
    assert run(["inspect", "a.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'prompt: "red\\nsquare"' in lines and "seed: 5" in lines and "model: toy" in lines
    assert run(["inspect", "a.png", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["source"] == "pictura" and facts["request"]["seed"] == 5


def test_inspect_reads_other_tools(capsys: pytest.CaptureFixture[str]) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text(
        "parameters",
        "a castle, night\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Size: 8x8, Model: dream",
    )
    Image.new("RGB", (8, 8)).save("a.png", pnginfo=info)
    assert run(["inspect", "a.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "prompt: a castle, night" in lines and "negative_prompt: blurry" in lines and "seed: 42" in lines
    assert run(["replay", "a.png", "--check"]) == 2


def test_inspect_says_when_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (8, 8)).save("a.png")
    assert run(["inspect", "a.png"]) == 1
    assert "says nothing" in capsys.readouterr().err


def test_compare_puts_models_beside_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", "red", "a blue square", "--models", "toy,toy", "--seed", "4"]) == 0
    out, err = capsys.readouterr()
    assert out == "compare.png\n" and "seed 4" in err
    sheet = pixels("compare.png")
    for prompt in ("red", "a blue square"):
        places = found(sheet, drawn(prompt, seed=4))
        assert len(places) == 2 and places[0][0] == places[1][0]  # both models, in one row
    assert run(["compare", "red", "--models", "toy", "--seed", "4"]) == 0
    assert capsys.readouterr().out == "compare-2.png\n"


def found(sheet: np.ndarray, picture: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of each place where `picture` stands on `sheet`."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, picture.shape)[:, :, 0]
    return [tuple(place) for place in np.argwhere((windows == picture).all((-1, -2, -3))).tolist()]


def test_interrupted_pictures_that_are_finished_stay(here: Path) -> None:
    order = ["generate", "red", "blue", "--model", "toy", "-n", "5000", "--steps", "30", "--seed", "1"]
    with open("printed", "w") as printed:
        process = subprocess.Popen(
            [sys.executable, "-c", HEED + CODE, *order],
            env=environment(),
            stdout=printed,
            stderr=subprocess.PIPE,
            text=True,
        )
    while Path("printed").read_text().count("\n") < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    kept = Path("printed").read_text().split()
    Path("printed").unlink()
    assert process.returncode == 130
    assert err == f"error: interrupted; {len(kept)} finished pictures kept\n"
    assert 3 <= len(kept) < 10_000
    assert sorted(path.name for path in here.iterdir()) == sorted(kept)
    np.testing.assert_array_equal(pixels(kept[-1]), drawn("red", **settings(kept[-1])))


def settings(path: str) -> dict[str, Any]:
    return {"seed": pictura.Picture.open(path).request.seed, "num_steps": 30}


def on_a_terminal(arguments: list[str], **more: str) -> tuple[int, str, str]:
    """(status, standard output, what the terminal saw): standard error is a pseudo-terminal."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *arguments],
        env=environment(**more),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=slave,
        text=True,
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(master)
    out = process.communicate(timeout=60)[0]
    return process.returncode, out, seen.decode()


def test_a_terminal_shows_pictures_and_a_bar() -> None:
    order = ["generate", "red", "--model", "toy", "--seed", "1", "--steps", "5"]
    status, out, seen = on_a_terminal(order, TERM="xterm-256color", COLORTERM="truecolor", COLUMNS="80")
    assert (status, out) == (0, "red-1.png\n")
    assert "generate" in seen and "5/5" in seen
    cells = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", seen)
    halves = np.asarray(cells, int).reshape(4, 8, 2, 3).transpose(0, 2, 1, 3).reshape(8, 8, 3)
    np.testing.assert_array_equal(halves, pixels("red-1.png"))


def test_kitty_gets_the_picture_itself() -> None:
    status, _, seen = on_a_terminal(
        ["generate", "red", "--model", "toy", "--seed", "1"], TERM="xterm-kitty", COLUMNS="80"
    )
    assert status == 0
    data = "".join(re.findall(r"\x1b_G[^;]*;([^\x1b]*)\x1b\\", seen))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(b64decode(data)))), pixels("red-1.png"))


def test_a_pipe_gets_no_bar_and_no_picture_unless_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["generate", "red", "--model", "toy"]) == 0
    assert capsys.readouterr().err == ""
    assert run(["generate", "red", "--model", "toy", "--show"]) == 0
    assert "▀" in capsys.readouterr().err


def test_models_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list"]) == 0
    assert re.search(r"^toy +[\d.]+ [kM]?B +plain colours", capsys.readouterr().out, re.M)
    assert run(["models", "list", "--json"]) == 0
    assert "toy" in [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert run(["models", "show", "toy"]) == 0
    assert "tint: added to every pixel" in capsys.readouterr().out
    assert run(["models", "show", "toy", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    model = pictura.TextToImage.from_preset("toy")
    assert facts["digest"] == model.digest
    assert facts["parameters"] == sum(p.numel() for p in model.backbone.parameters())
    assert run(["models", "show", "toi"]) == 2


def test_doctor_knows_this_machine_and_its_models(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    run(["doctor", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["device"]["torch"] == torch.__version__
    assert facts["device"]["dtype"] == "float32" and "bfloat16" in facts["device"]["why"]
    assert "cores" in facts["cpu"] and "GiB free of" in facts["memory"]
    assert facts["extras"]["local"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert "M parameters" in facts["models"]["toy"]


NO_TORCH = """
import importlib.util, sys
whole = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "torch" else whole(name, *more)
sys.modules["torch"] = None
"""


def test_models_and_inspect_do_without_torch() -> None:
    pictura.TextToImage.from_preset("toy").generate("red", seed=5).save("a.png")
    for order in (["models", "list"], ["models", "show", "toy"], ["inspect", "a.png"]):
        done = subprocess.run(
            [sys.executable, "-c", NO_TORCH + CODE, *order],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert (done.returncode, done.stderr) == (0, ""), order
    order = ["generate", "red", "--model", "toy"]
    done = subprocess.run(
        [sys.executable, "-c", NO_TORCH + CODE, *order], env=environment(), capture_output=True, text=True
    )
    assert (
        done.returncode == 1
        and "pip install 'pictura[local]'" in done.stderr
        and done.stderr.count("\n") == 1
    )


def test_shipped_weights_are_those_that_their_presets_promise() -> None:
    from pictura import families
    from pictura.cli.doctor import state

    promising = [name for name, preset in families.presets().items() if preset.sha256]
    assert promising
    assert {name: state(name).rpartition(", ")[2] for name in promising} == dict.fromkeys(
        promising, "digest verified"
    )


def test_doctor_finds_a_damaged_model(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pictura import presets

    weights = presets.resolve("toy").path
    promised = presets.Preset(name="mine", family="toy", uri=str(weights), folder="", sha256="0" * 64)
    monkeypatch.setattr(presets, "presets", lambda: {"mine": promised})
    assert run(["doctor"]) == 1
    assert "models: mine: damaged: its weights have the digest" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.toml"], "there is no recipe 'nowhere.toml'"),
        (["mine.toml", "--processes", "0"], "processes is 0; give a whole number, 1 or more"),
        (["mine.toml", "--out", "full", "--no-resume"], "full"),
    ],
)
def test_train_refuses_bad_input(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.toml").write_text('family = "toy"\ndata = "scenes"\nsamples = 8\nbatch = 4\n')
    Path("full").mkdir()
    Path("full/log.jsonl").write_text("{}\n")
    assert run(["train", *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A very small `scenes` that has learnt nothing."""
    import torch

    from pictura import families
    from pictura.training.results import export

    small = {"width": 64, "heads": 1, "hidden": 64, "depth": 1, "text_depth": 1, "coefficients": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        family = families.load("scenes").from_config(small)
    folder = tmp_path_factory.mktemp("models") / "untrained"
    export(family, folder, {})
    return folder


def test_evaluate_reports_what_is_right(untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = ["evaluate", str(untrained), "--count", "1", "--option", "num_steps=1"]
    assert run([*order, "--out", "report"]) == 0
    out, err = capsys.readouterr()
    for category in ("single object", "relation", "count", "held-out relation", "background"):
        assert f"| {category} |" in out
    assert err == "the report is in report\n"
    assert {"report.md", "report.html", "report.json"} <= {path.name for path in Path("report").iterdir()}
    assert run([*order, "--out", "report"]) == 2
    assert run([*order, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["settings"] == {"num_steps": 1} and facts["request"]["num_steps"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "scene"], "did you mean 'scenes'"),
        (["--count", "0"], "count is 0"),
        (["--seed", "x"], "seed is 'x'"),
        (["--option", "seed=3"], "place of its own"),
    ],
)
def test_evaluate_refuses_bad_input(
    untrained: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["evaluate", str(untrained), *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err


def test_a_short_run_trains_a_model(untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.toml").write_text(
        'family = "scenes"\ndata = "scenes"\nsamples = 16\nbatch = 8\nlog_every = 1\n'
        "[architecture]\nwidth = 64\nheads = 1\nhidden = 64\ndepth = 1\ntext_depth = 1\ncoefficients = 16\n"
    )
    assert run(["train", "tiny.toml"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split()[:4] for line in err.splitlines()[:2]] == [
        ["step", "1", "samples", "8"],
        ["step", "2", "samples", "16"],
    ]
    assert "the model is in runs/tiny/preset" in err
    assert run(["generate", "a cat", "--model", "runs/tiny/preset", "--steps", "1", "--seed", "1"]) == 0
    assert run(["train", "tiny.toml", "--no-resume"]) == 2
