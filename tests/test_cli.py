"""The command line as a shell sees it: exit statuses, one-line errors, help, completion, light imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pictura import __version__
from pictura.cli.app import app, run

SOURCE = Path(__file__).parents[1] / "src"


def pictura(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "100", **options.pop("env", {})}
    code = "import sys; from pictura.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, *options.pop("python", ()), "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group below `group`, with the words that reach it."""
    group = typer.main.get_command(app) if group is None else group
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


def test_every_command_and_option_has_help() -> None:
    for path, command in commands():
        assert (command.help or "").strip(), path
        for parameter in command.params:
            assert (parameter.help or "").strip(), (path, parameter.name)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["generate", "--help"], ["data", "--help"]])
def test_help_and_version_are_light(arguments: list[str]) -> None:
    done = pictura(*arguments, python=["-X", "importtime"])
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"torch", "numpy", "PIL", "httpx2", "sqlalchemy", "huggingface_hub", "safetensors"}
    assert "typer" in imported
    assert not imported & heavy


def test_version() -> None:
    assert pictura("--version").stdout == f"pictura {__version__}\n"


def test_help_takes_less_than_a_third_of_a_second() -> None:
    """Processor time, best of five, so that other work on the machine counts as little as can be."""
    resource = pytest.importorskip("resource")
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert pictura("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert min(times) <= 0.3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generat"], "Did you mean 'generate'"),
        (["generate"], "no prompt"),
        (["generate", "x", "--sed", "1"], "--seed"),
        (["generate", "x", "--seed", "x"], "seed is 'x'; give a whole number 0..2^63-1"),
        (["generate", "x", "--seed", "1.5"], "seed is 1.5; give a whole number"),
        (["generate", "x", "--seed", "-1"], "seed is -1"),
        (["generate", "x", "--seed", str(2**63)], "seed is 9223372036854775808"),
        (["generate", "x", "--steps", "0"], "num_steps is 0; give a whole number 1..1000"),
        (["generate", "x", "--guidance", "nan"], "guidance_scale is nan; give a finite number"),
        (["generate", "x", "--size", "0x64"], "size is '0x64'; give WIDTHxHEIGHT"),
        (["generate", "x", "--size", "1000000x64"], "size is '1000000x64'"),
        (["generate", "x", "--size", "wide"], "size is 'wide'"),
        (["generate", "x" * 100_000], "prompt has 100,000 characters; at most 10,000"),
        (["generate", "x", "-n", "0"], "num is 0"),
        (["generate", "x", "--option", "eta"], "give NAME=VALUE"),
        (["generate", "x", "--option", "seed=1"], "place of its own"),
        (["generate", "x", "--lora", "a:b"], "give FILE or FILE:WEIGHT"),
        (["generate", "x", "--prompts", "nowhere.txt"], "not from both"),
        (["generate", "--prompts", "nowhere.txt"], "cannot be read"),
        (["generate", "x", "y", "--out", "a.png"], "give a folder"),
        (["generate", "x", "--out", "a.gif"], ".webp"),
        (["generate", "x", "--out", "nowhere/a.png"], "does not exist"),
        (["replay", "nowhere.png"], "there is no file"),
        (["inspect", "nowhere.png"], "there is no file"),
        (["compare", "x", "--models", ","], "names with commas"),
        (["data", "scenes", "--count", "x", "--out", "new"], "count is 'x'; give a whole number, 1 or more"),
        (["data", "scenes", "--count", "1", "--out", "new", "--split", "tain"], "did you mean 'train'"),
        (["data", "scenes", "--count", "1"], "--out"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert words in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("prompt", [b"half \xff", b"\xed\xa0\x80"])
def test_a_prompt_that_is_no_text_is_refused(prompt: bytes) -> None:
    done = pictura("generate", os.fsdecode(prompt))
    assert done.returncode == 2
    assert "give well-formed Unicode" in done.stderr and done.stderr.count("\n") == 1


def test_bad_input_does_not_wait_for_torch() -> None:
    done = pictura("generate", "x", "--seed", "x", python=["-X", "importtime"])
    assert done.returncode == 2
    assert not [line for line in done.stderr.splitlines() if line.endswith(" torch")]


def test_prompts_are_read_before_any_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_bytes(b"a cat\n\n  a dog  \na \xff\n")
    assert run(["generate", "--prompts", str(tmp_path / "prompts.txt")]) == 2
    assert "prompt has half a surrogate pair at 2" in capsys.readouterr().err
    (tmp_path / "prompts.txt").write_text("\n \n")
    assert run(["generate", "--prompts", str(tmp_path / "prompts.txt")]) == 2
    assert "holds no prompt" in capsys.readouterr().err


def test_a_file_in_the_way_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"precious")
    assert run(["generate", "x", "--out", str(file)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert file.read_bytes() == b"precious"


def test_no_arguments_give_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Usage" in "".join(capsys.readouterr())


def test_data_scenes_writes_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes"
    order = ["data", "scenes", "--count", "2", "--out", str(out), "--split", "validation", "--start", "5"]
    assert run(order) == 0
    assert run(order) == 0  # the second time there is nothing to do
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "2 scenes of split validation" in printed.err
    names = sorted(path.name for path in (out / "validation").iterdir())
    assert names == ["00000005.png", "00000006.png", "metadata.jsonl"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pictura gen", {"generate"}),
        ("pictura data ", {"scenes"}),
        ("pictura generate --see", {"--seed"}),
        ("pictura generate --over", {"--overwrite"}),
    ],
)
def test_bash_completion(words: str, expected: set[str]) -> None:
    environment = {
        "_PICTURA_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = pictura(env=environment)
    assert set(done.stdout.split()) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts(shell: str) -> None:
    done = pictura(env={"_PICTURA_COMPLETE": f"source_{shell}"})
    assert done.returncode == 0
    assert "_PICTURA_COMPLETE" in done.stdout
