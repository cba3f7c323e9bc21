"""`pictura history`: what was drawn here is found, explained, rated, gathered, made again, kept elsewhere."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pictura.cli.app import run
from pictura.history import History, recording

ROOT = Path(__file__).parents[1]
CODE = "import sys; from pictura.cli import main; sys.exit(main())"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The history of a user who draws with the toy family in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PICTURA_HISTORY")
    monkeypatch.setenv("PICTURA_HOME", str(tmp_path / "home"))
    recording._tell.cache_clear()
    return tmp_path / "home"


@pytest.fixture
def drawn(home: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Ids of a red square (seed 3), a blue one (4) and a cat (5), drawn by `pictura generate`."""
    arguments = ["red square", "blue square", "cat", "--model", "toy", "--seed", "3", "--json", "--steps=2"]
    assert run(["generate", *arguments]) == 0
    capsys.readouterr()
    with History(None, home) as history:
        return [entry.id for entry in history.walk()][::-1]


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> tuple[str, str]:
    assert run(["history", *arguments]) == status
    out, err = capsys.readouterr()
    return out, err


def rows(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[Any]:
    out, _ = told(capsys, *arguments, "--json", status=status)
    return [json.loads(line) for line in out.splitlines()]


Capture = pytest.CaptureFixture[str]


def test_what_was_drawn_is_found(drawn: list[str], capsys: Capture) -> None:
    out, err = told(capsys, "search", "square")
    assert [line.split("\t")[0] for line in out.splitlines()] == [drawn[1][:8], drawn[0][:8]] and err == ""
    assert out.splitlines()[0].split("\t")[2:] == ["toy", "8x8", "4", "-", "blue square"]
    (cat,) = rows(capsys, "search", "cat")
    assert cat["id"] == drawn[2] and cat["request"]["seed"] == 5 and Path(cat["file"]).is_file()
    assert [row["id"] for row in rows(capsys, "search", "--seed", "3")] == [drawn[0]]
    assert [row["id"] for row in rows(capsys, "search", "--since", "1h")] == drawn[::-1]
    assert rows(capsys, "search", "--until", "2020-01-01") == [] == rows(capsys, "search", "-m", "scenes")
    out, err = told(capsys, "search", "--limit", "2")
    assert len(out.splitlines()) == 2 and "--limit 0" in err
    assert len(rows(capsys, "search", "--limit", "0")) == 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["search", "--limit", "-1"], "limit is -1"),
        (["search", "--limit", "x"], "limit is 'x'"),
        (["search", "--since", "someday"], "since is 'someday'"),
        (["search", "--until", "9999999w"], "until is"),
        (["search", "--seed", "1.5"], "seed is 1.5"),
        (["show", "zz"], "no id"),
        (["show", "0123"], "no picture"),
        (["rate", "0123"], "nothing to rate"),
        (["replay", "0123"], "no picture"),
        (["export", "out", "--format", "tar"], "format 'tar'"),
        (["restore", "nowhere"], "no backup"),
        (["search", "--database", "mysql://x"], "no URL"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], reason: str, capsys: Capture) -> None:
    _, err = told(capsys, *arguments, status=2)
    assert reason in err and len(err.splitlines()) == 1 and err.startswith("error: ")


def test_show_tells_all_that_made_it(drawn: list[str], capsys: Capture, tmp_path: Path) -> None:
    out, _ = told(capsys, "show", drawn[0][:6])
    lines = dict(line.split(": ", 1) for line in out.splitlines() if re.match(r"\w+: ", line))
    assert lines["id"] == drawn[0] and lines["prompt"] == "red square" and lines["seed"] == "3"
    command = shlex.split(lines["command"])
    assert run([*command[1:2], "--out=again.png", "--no-history", *command[2:]]) == 0
    with Image.open("again.png") as again, Image.open(lines["file"]) as then:
        np.testing.assert_array_equal(np.asarray(again), np.asarray(then))
    names: dict[str, Any] = {}
    exec("\n".join(line[4:] for line in out.partition("python:\n")[2].splitlines()), names)
    np.testing.assert_array_equal(np.asarray(names["picture"]), np.asarray(Image.open("again.png")))
    capsys.readouterr()
    (facts,) = rows(capsys, "show", drawn[0])
    assert facts["command"] == lines["command"] and facts["request"]["prompt"] == "red square"


def test_rating_choosing_gathering(drawn: list[str], capsys: Capture) -> None:
    assert "***\tred square" in told(capsys, "rate", drawn[0], "--stars", "3")[0]
    (rated,) = rows(capsys, "rate", drawn[0], "--note", "so red")
    assert (rated["stars"], rated["note"]) == (3, "so red")
    assert [row["id"] for row in rows(capsys, "search", "--min-stars", "2")] == [drawn[0]]
    assert "1..5" in told(capsys, "rate", drawn[0], "--stars", "6", status=2)[1]
    (bare,) = rows(capsys, "rate", drawn[0], "--stars", "0")
    assert (bare["stars"], bare["note"]) == (None, "so red")
    assert rows(capsys, "search", "--min-stars", "1") == []
    assert rows(capsys, "choose", drawn[1][:8], drawn[0][:8]) == [{"winner": drawn[1], "loser": drawn[0]}]
    told(capsys, "collect", "squares", drawn[0], drawn[1], drawn[2])
    told(capsys, "collect", "squares", drawn[2], "--out")
    assert told(capsys, "collections")[0] == "squares\t2\n"
    assert 'collections: ["squares"]' in told(capsys, "show", drawn[0])[0].splitlines()
    assert [row["collections"] for row in rows(capsys, "show", drawn[2])] == [[]]
    assert [r["id"] for r in rows(capsys, "search", "--collection", "squares")] == [drawn[1], drawn[0]]


def test_replay(drawn: list[str], home: Path, capsys: Capture) -> None:
    assert told(capsys, "replay", drawn[0])[0] == f"identical: {drawn[0]}\n"
    with History(None, home) as history:
        entry = history.get(drawn[1])
        assert history.count() == 3  # looking does not add to it
        other = entry.picture()
        other.image.putpixel((0, 0), (1, 2, 3))
        changed = history.add(other.amended(model_digest="0" * 64))
    (found,) = rows(capsys, "replay", changed.id, "--out", "new.png", status=1)
    assert not found["identical"] and found["differences"]["pixels"]["differing"] == 1
    assert found["differences"]["model_digest"]["then"] == "0" * 64 and Path("new.png").is_file()
    out, err = told(capsys, "replay", changed.id, status=1)
    assert "1 of 64 pixels differ" in out and "the model has changed" in err


def test_export(drawn: list[str], capsys: Capture) -> None:
    assert "2 pictures" in told(capsys, "export", "squares", "square")[1]
    assert len(list(Path("squares").glob("*.png"))) == 2
    told(capsys, "export", "all.zip")
    assert len(zipfile.ZipFile("all.zip").namelist()) == 4
    assert rows(capsys, "export", "set", "--format=datasets") == [{"path": "set", "count": 3, "missing": []}]
    assert "exists" in told(capsys, "export", "set", status=2)[1]
    assert "no preferences" in told(capsys, "export", "pairs", "--preferences", status=2)[1]
    told(capsys, "rate", drawn[0], "--stars", "3")
    told(capsys, "export", "rated", "--min-stars", "3")
    assert len(list(Path("rated").glob("*.png"))) == 1
    assert run(["generate", "cat", "--model", "toy", "--seed", "9"]) == 0
    capsys.readouterr()
    (other,) = [row["id"] for row in rows(capsys, "search", "--seed", "9")]
    told(capsys, "choose", other, drawn[2])
    (pairs,) = rows(capsys, "export", "pairs", "--preferences")
    assert (pairs["pairs"], pairs["choices"], pairs["pictures"]) == (1, 1, 2)


def test_backup_restore_check(drawn: list[str], home: Path, capsys: Capture) -> None:
    assert "3 of them new" in told(capsys, "backup", "saved")[1]
    assert rows(capsys, "check", "--folder", "saved")[0]["sound"]
    assert rows(capsys, "restore", "saved", "--folder", "other")[0]["pictures"] == 3
    assert len(rows(capsys, "search", "--folder", "other")) == 3
    with History(None, home) as history:
        history.get(drawn[0]).path.unlink()
    assert told(capsys, "check", status=1)[0] == f"missing: {drawn[0]}\n"
    assert told(capsys, "check", "--folder", "other")[0] == "sound: 3 pictures\n"


def test_remove(drawn: list[str], capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert "--yes" in told(capsys, "remove", drawn[0], status=2)[1]
    assert told(capsys, "remove", drawn[0], drawn[1], "--yes")[1] == "2 forgotten\n"
    assert [row["id"] for row in rows(capsys, "search")] == [drawn[2]]


def test_stats(drawn: list[str], home: Path, capsys: Capture) -> None:
    (found,) = rows(capsys, "stats")
    assert (found["pictures"], found["files"], found["models"]) == (3, 3, {"toy": 3})
    assert found["bytes"] == sum(path.stat().st_size for path in home.rglob("*.png"))
    assert "pictures: 3" in told(capsys, "stats")[0]
    place = "postgresql://me:secret@nowhere.invalid/x"
    _, err = told(capsys, "stats", "--database", place, status=1)
    assert "secret" not in err


def test_doctor_tells_where_it_is(home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from pictura.cli.doctor import history

    assert history() == f"none yet; it will be in {home}" and not home.exists()
    assert run(["generate", "red", "--model", "toy"]) == 0
    assert history() == f"1 pictures in {home}"
    monkeypatch.setenv("PICTURA_DATABASE", "mysql://nothing")
    assert history().startswith("cannot be used: ")
    monkeypatch.setenv("PICTURA_HISTORY", "off")
    assert history().startswith("off")


def test_commands_that_keep_nothing(home: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = ["generate", "cat", "--model", "toy", "--seed", "1", "--out", "a.png"]
    assert run([*draw, "--no-history"]) == 0
    monkeypatch.setenv("PICTURA_HISTORY", "off")
    assert run([*draw, "--overwrite"]) == 0
    monkeypatch.delenv("PICTURA_HISTORY")
    assert run(["replay", "a.png", "--check"]) == 0 and not home.exists()
    assert run(["replay", "a.png", "--out", "b.png"]) == 0
    assert run(["compare", "cat", "--models", "toy", "--out", "sheet.png"]) == 0
    capsys.readouterr()
    assert len(rows(capsys, "search")) == 2


def test_a_broken_history_costs_no_picture(tmp_path: Path, home: Path) -> None:
    home.write_bytes(b"not a folder")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests/toy")])}
    command = [
        sys.executable,
        "-c",
        CODE,
        "generate",
        "red square",
        "blue square",
        "--model",
        "toy",
        "--out",
        "here",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 2 == len(list(Path("here").iterdir()))
    kept = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(kept) == 1 and "not kept in the history" in kept[0]


def test_a_table_on_a_terminal_that_no_prompt_can_upset(home: Path, capsys: Capture) -> None:
    assert run(["generate", "[red]\x1b[2J cat", "--model", "toy", "--seed", "3"]) == 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100", "TERM": "xterm"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CODE, "history", "search"], env=environment, stdout=theirs, stderr=theirs
    ) as process:
        process.wait(120)
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "prompt" in text.splitlines()[0] and "[red]\\x1b[2J cat" in text


def test_help_loads_neither_database_nor_torch() -> None:
    code = "import sys; from pictura.cli import main; main(['history', '--help']); print(sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "'typer'" in out and "'torch'" not in out and "'sqlalchemy'" not in out and "'numpy'" not in out
