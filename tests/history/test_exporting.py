"""Pictures leave the history as data sets that other programs read; killed exports go on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

import pictura
from pictura.errors import FileError, ParameterError
from pictura.history import History
from pictura.history.exporting import COLUMNS, export, facts, zipped

SOURCE = Path(pictura.__file__).parents[1]


@pytest.fixture
def full(tmp_path, picture):
    """A history with three pictures, the last of which has no seed."""
    with History(None, tmp_path / "home") as history:
        first = history.add(picture("a cat", seed=2**63 - 1, options={"eta": 0.5}, negative_prompt="ü"))
        history.add(picture("two\nlines", seed=0, schedule="karras"))
        history.add(
            picture("no seed", seed=3).amended(request=pictura.Request(prompt="no seed", model="far"))
        )
        history.rate(first.id, stars=4, note="good")
        yield history


def lines(text):
    return {row["file_name"]: row for row in map(json.loads, text.splitlines())}


def test_a_folder_is_what_imagefolder_reads(full, tmp_path):
    import datasets

    done = export(full.walk(), tmp_path / "out")
    assert (done.path, done.count, done.missing) == (tmp_path / "out", 3, ())
    rows = lines((tmp_path / "out" / "metadata.jsonl").read_text())
    for entry in full.walk():
        name = f"{entry.id}.png"
        assert (tmp_path / "out" / name).read_bytes() == entry.content()
        assert rows.pop(name) == {"file_name": name, **facts(entry)}
    assert not rows and len(list((tmp_path / "out").iterdir())) == 4
    read = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    by_id = {row["id"]: row for row in read}
    for entry in full.walk():
        np.testing.assert_array_equal(np.asarray(by_id[entry.id]["image"]), np.asarray(entry.picture()))
        assert by_id[entry.id]["prompt"] == entry.request.prompt
        assert by_id[entry.id]["seed"] == entry.request.seed


def test_datasets_reads_its_own_form(full, tmp_path):
    import datasets

    assert export(full.walk(), tmp_path / "out", "datasets").count == 3
    read = datasets.load_from_disk(str(tmp_path / "out"))
    assert set(read.column_names) == {"image", *COLUMNS}
    for row, entry in zip(read, full.walk(), strict=True):
        np.testing.assert_array_equal(np.asarray(row.pop("image")), np.asarray(entry.picture()))
        assert row == facts(entry)
    one = read.select([2])[0]
    assert (one["stars"], one["note"], one["seed"]) == (4, "good", 2**63 - 1)
    assert json.loads(one["options"]) == {"eta": 0.5}


def test_large_sets_become_several_files(full, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr("pictura.history.exporting.SHARD", 1)
    export(full.walk(), tmp_path / "out", "datasets")
    assert len(list((tmp_path / "out").glob("*.arrow"))) == 3
    assert len(datasets.load_from_disk(str(tmp_path / "out"))) == 3


@pytest.mark.parametrize("form", ["folder", "datasets", "zip"])
def test_nothing_found_is_an_empty_set(form, tmp_path):
    import datasets

    assert export([], tmp_path / "out", form).count == 0
    if form == "datasets":
        assert datasets.load_from_disk(str(tmp_path / "out")).column_names == ["image", *COLUMNS]


def test_a_zip_comes_in_pieces_and_is_whole(full, tmp_path):
    pieces = list(zipped(full.walk()))
    assert len(pieces) > 3
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as packed:
        assert packed.testzip() is None
        rows = lines(packed.read("metadata.jsonl").decode())
        assert set(packed.namelist()) == {*rows, "metadata.jsonl"}
        for entry in full.walk():
            assert packed.read(f"{entry.id}.png") == entry.content()
    done = export(full.walk(), tmp_path / "out.zip", "zip")
    assert done.count == 3 and zipfile.ZipFile(done.path).namelist()[-1] == "metadata.jsonl"


@pytest.mark.parametrize("form", ["folder", "datasets", "zip"])
def test_a_lost_picture_does_not_keep_the_others(full, tmp_path, form):
    gone, damaged, left = full.walk()
    gone.path.unlink()
    damaged.path.write_bytes(b"something else")
    done = export(full.walk(), tmp_path / "out", form)
    assert done.count == 1 and set(done.missing) == {gone.id, damaged.id}
    with zipfile.ZipFile(io.BytesIO(b"".join(zipped(full.walk())))) as packed:
        assert packed.read("missing.txt").decode().split() == [gone.id, damaged.id]
        assert f"{left.id}.png" in packed.namelist()


@pytest.mark.parametrize("form", ["folder", "datasets", "zip"])
def test_nothing_is_written_over(full, tmp_path, form):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileError, match="exists"):
        export(full.walk(), tmp_path / "out", form)
    with pytest.raises(FileError, match="cannot be written"):
        export(full.walk(), tmp_path / "nowhere" / "out", form)
    with pytest.raises(ParameterError, match="'zip'"):
        export(full.walk(), tmp_path / "new", "zipp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "out"]


def test_an_interrupted_folder_goes_on_and_shows_no_trace(full, tmp_path):
    def broken():
        yield from list(full.walk())[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(broken(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    part = tmp_path / ".out.part"
    first, second, _ = full.walk()
    (part / f"{second.id}.png").write_bytes(second.content()[:10])  # as a loss of power may leave it
    kept = (part / f"{first.id}.png").stat().st_ino
    (part / "of-another-search.png").write_bytes(b"")
    export(full.walk(), tmp_path / "out")
    assert (tmp_path / "out" / f"{first.id}.png").stat().st_ino == kept
    assert (tmp_path / "out" / f"{second.id}.png").read_bytes() == second.content()
    assert len(list((tmp_path / "out").iterdir())) == 4 and not part.exists()


SLOWLY = """
import sys, time
from pictura.history import History
from pictura.history.exporting import export
def slowly(entries):
    for entry in entries:
        yield entry
        print("one", flush=True)
        time.sleep(0.2)
with History(None, sys.argv[1]) as history:
    export(slowly(history.walk()), sys.argv[2], sys.argv[3])
"""


@pytest.mark.parametrize("form", ["folder", "datasets", "zip"])
def test_killed_at_any_picture_it_is_whole_after_the_next_try(full, tmp_path, form):
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    target = tmp_path / "out"
    for after in (1, 3):
        command = [sys.executable, "-c", SLOWLY, str(full.folder), str(target), form]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(after):
                assert process.stdout.readline() == "one\n"
            if form != "zip":
                with pytest.raises(FileError, match="another process"):
                    export(full.walk(), target, form)
            process.kill()
        assert not target.exists()
    time.sleep(0.05)
    assert export(full.walk(), target, form).count == 3
