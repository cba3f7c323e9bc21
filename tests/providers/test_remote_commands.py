"""Remote models on the command line, in processes of their own that never load torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from standins import STANDINS

import pictura
from loopback import SECRET, Answer, Loopback, b64
from pictura import Picture
from pictura.cli import main

SOURCE = Path(pictura.__file__).parents[1]
RUN = """
import sys
from pictura.cli import main
status = main(sys.argv[1:])
assert "torch" not in sys.modules, "torch was loaded"
sys.exit(status)
"""


def pictura_command(*words, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-c", RUN, *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_generate_and_replay(tmp_path):
    with STANDINS["huggingface"].serve() as server:
        done = pictura_command(
            "generate", "a cat", "a dog", "--model", "hf-inference://org/model", "--base-url", server.url,
            "--api-key-env", "MY_KEY", "--seed", "5", "--steps", "4", "--json", cwd=tmp_path, MY_KEY=SECRET,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]  # in the order they came
        lines.sort(key=lambda line: line["request"]["seed"])
        assert [line["request"]["seed"] for line in lines] == [5, 6]
        picture = Picture.open(tmp_path / lines[0]["file"])
        assert picture.request.num_steps == 4
        again = ["replay", lines[0]["file"], "--check"]
        again = pictura_command(*again, "--api-key-env", "HF_TOKEN", cwd=tmp_path, HF_TOKEN=SECRET)
        assert again.returncode == 0, again.stderr
    assert SECRET not in done.stdout + done.stderr + again.stdout + again.stderr
    assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {SECRET}"}


@pytest.mark.parametrize("where", ["file", "history"])
def test_a_key_of_the_environment_goes_to_no_address_that_a_picture_names(where, tmp_path):
    history = {"PICTURA_HISTORY": "on", "PICTURA_HOME": str(tmp_path / "home")}
    with STANDINS["openai"].serve() as server:
        words = ["generate", "a cat", "--model", f"openai+{server.url}#m", "--out", "strange.png"]
        done = pictura_command(*words, cwd=tmp_path, OPENAI_API_KEY="sk-of-someone-else", **history)
        assert done.returncode == 0, done.stderr
        words = ["replay", "strange.png", "--out", "again"]
        if where == "history":
            found = pictura_command("history", "search", "--json", cwd=tmp_path, **history)
            words = ["history", "replay", json.loads(found.stdout.splitlines()[0])["id"]]
        for named in ([], ["--api-key-env", "OPENAI_API_KEY"]):
            done = pictura_command(*words, *named, cwd=tmp_path, OPENAI_API_KEY=SECRET, **history)
            assert done.returncode == 0, done.stderr
    keys = [asked.headers.get("authorization") for asked in server.asked]
    assert keys == ["Bearer sk-of-someone-else", None, f"Bearer {SECRET}"]


def test_pictures_without_seeds_have_names_of_their_own(tmp_path):
    colours = iter([(1, 2, 3), (4, 5, 6)])
    with Loopback(lambda asked: {"data": [{"b64_json": b64(next(colours))}]}) as server:
        for _ in range(2):
            done = pictura_command(
                "generate", "a cat", "--model", f"{server.url}/v1#m", "--api", "openai", "--out", "out",
                cwd=tmp_path,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 2 and all(name.startswith("a-cat-") and "None" not in name for name in names)


def test_a_failure_is_one_line_and_keeps_the_rest(tmp_path):
    def answer(asked):
        if b"cat" in asked.content:
            return Answer(400, {"error": "no cats"})
        return {"data": [{"b64_json": b64()}]}

    with Loopback(answer) as server:
        words = ["a cat", "a dog", "--model", f"openai+{server.url}#m"]
        done = pictura_command("generate", *words, cwd=tmp_path)
    assert done.returncode == 1 and len(list(tmp_path.glob("a-dog-*.png"))) == 1
    assert "400: no cats" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "http://127.0.0.1:9"], "add api= one of"),
        (["--model", "http://127.0.0.1:9", "--api", "opnai"], "did you mean 'openai'"),
        (["--model", "openai://m", "--api", "pictura"], "say it once"),
        (["--model", "openai://m", "--api-key-env", "NOT_SET"], "NOT_SET"),
        (["--model", "openai://m"], "OPENAI_API_KEY"),
        (["--model", "openai://m", "--base-url", "x"], "base_url"),
        (["--model", "hf-inference://", "--base-url", "http://127.0.0.1:9", "--sampler", "euler"], "sampler"),
    ],
)
def test_bad_input_is_one_line(words, said, monkeypatch, capsys):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["generate", "a cat", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and len(told.splitlines()) == 1


def test_services_are_listed(tmp_path):
    listed = pictura_command("models", "list", cwd=tmp_path).stdout
    for name in ("openai://MODEL", "hf-inference://MODEL", "bedrock://MODEL"):
        assert name in listed
    shown = json.loads(pictura_command("models", "show", "stability://core", "--json", cwd=tmp_path).stdout)
    assert shown["keys"] == ["STABILITY_API_KEY"] and "strength" in shown["options"]
