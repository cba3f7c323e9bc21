"""What the command line says about texts: flags reach the request, mistakes are one line with status 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pictura.cli import main


def generate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """(status, the pictures as JSON, standard error)."""
    status = main(["generate", *arguments, "--steps", "1", "--json", "--no-show"])
    out, err = capsys.readouterr()
    return status, [json.loads(line) for line in out.splitlines()], err


def test_choices_styles_and_wildcards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "animal.txt").write_text("cat\ndog\n")
    (tmp_path / "mine.csv").write_text('name,prompt,negative_prompt\nsun,"{prompt}, sunny",\n')
    out = ("--out", str(tmp_path / "out"), "--seed", "3")
    flags = ("--wildcards", str(tmp_path), "--style", "sun", "--styles", str(tmp_path / "mine.csv"))
    status, (picture, other), _ = generate(
        capsys, "a {__animal__}|{big|small} __animal__", "-n", "2", *flags, *out
    )
    assert status == 0
    for one in (picture, other):
        assert one["request"]["prompt"] in {
            f"a {{{a}}}|{b} {c}, sunny"
            for a in ("cat", "dog")
            for b in ("big", "small")
            for c in ("cat", "dog")
        }
        assert one["request"]["options"]["style"] == ["sun"]
        assert one["request"]["options"]["template"] == "a {__animal__}|{big|small} __animal__"
    assert main(["replay", picture["file"], "--check"]) == 0


def test_combinations_and_plain_syntax(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", str(tmp_path / "out"), "--seed", "3")
    status, pictures, _ = generate(capsys, "a {cat|dog}", "a car", "--combinations", *out)
    assert status == 0
    assert [one["request"]["prompt"] for one in pictures] == ["a cat", "a dog", "a car"]
    status, (picture,), _ = generate(capsys, "a {cat|dog}", "--prompt-syntax", "plain", *out)
    assert status == 0 and picture["request"]["prompt"] == "a {cat|dog}"
    assert picture["request"]["options"]["prompt_syntax"] == "plain"


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["a __animal__"], "--wildcards DIR"),
        (["a __animal__", "--wildcards", "nowhere"], "no folder"),
        (["a __animal__", "--combinations"], "--wildcards DIR"),
        (["a cat", "--style", "inq"], "did you mean 'ink'"),
        (["a cat", "--style", "ink", "--styles", "nowhere.json"], "cannot be read"),
        (["a cat", "--prompt-syntax", "compel"], "a1111, plain"),
        (["a {3$$cat|dog}"], "of 2 choices"),
        (["a cat", "--embedding", "x.safetensors"], "cannot use embeddings"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, pictures, err = generate(capsys, *arguments, "--out", "out")
    assert status == 2 and not pictures
    (line,) = err.splitlines()
    assert line.startswith("error: ") and message in line


def test_the_environment_names_folders_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "animal.txt").write_text("cat\n")
    (tmp_path / "mine.json").write_text('{"sun": {"prompt": "{prompt}, sunny"}}')
    monkeypatch.setenv("PICTURA_WILDCARDS", str(tmp_path))
    monkeypatch.setenv("PICTURA_STYLES", str(tmp_path / "mine.json"))
    status, (picture,), _ = generate(
        capsys, "a __animal__", "--style", "sun", "--out", str(tmp_path / "out.png")
    )
    assert status == 0 and picture["request"]["prompt"] == "a cat, sunny"
