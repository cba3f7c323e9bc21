"""Backups while others write, whoever is killed; the way back; whether a history is whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import pictura
from pictura.errors import FileError, NotFound
from pictura.history import History
from pictura.history.backup import backup, restore
from pictura.history.checking import check
from pictura.history.removing import remove

SOURCE = Path(pictura.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE)}


@pytest.fixture
def used(tmp_path, picture):
    with History(None, tmp_path / "home") as history:
        for seed in range(3):
            history.add(picture(seed=seed))
        yield history


def seeds(folder):
    with History(None, folder) as history:
        return [entry.request.seed for entry in history.walk()]


def test_there_and_back(used, tmp_path):
    used.rate(next(used.walk()).id, stars=5, note="the best")
    used.collect("good", *(entry.id for entry in used.walk()))
    done = backup(used, tmp_path / "backup")
    assert (done.pictures, done.new, done.missing) == (3, 3, ())
    back = restore(tmp_path / "backup", tmp_path / "new")
    assert (back.pictures, back.new, back.missing) == (3, 3, ())
    with History(None, tmp_path / "new") as history:
        assert check(history).sound and history.collections() == {"good": 3}
        assert history.search("cat", min_stars=5).entries[0].note == "the best"
        for old, new in zip(used.walk(), history.walk(), strict=True):
            assert (old.id, old.made_at) == (new.id, new.made_at)
            np.testing.assert_array_equal(np.asarray(old.picture()), np.asarray(new.picture()))
    names = {path.name for path in (tmp_path / "backup").iterdir()}
    assert names == {"history.sqlite", "images"}  # nothing half-written, nothing of SQLite's own


def test_what_requests_begin_with_comes_along(used, tmp_path, picture, monkeypatch):
    from pictura.attachments import open_picture, recorded

    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))
    began = recorded(picture(seed=77).image, "image")
    lost = {"path": "/weights.safetensors", "sha256": "0" * 64}
    used.add(picture(seed=8, options={"image": began, "lora": [{**lost, "weight": 1.0}]}))
    assert backup(used, tmp_path / "backup").attachments == 1
    assert backup(used, tmp_path / "backup").new == 0
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "elsewhere"))
    done = restore(tmp_path / "backup", tmp_path / "new")
    assert done.attachments == 1 and done.missing == ()
    with History(None, tmp_path / "new") as history:
        record = history.search(seed=8).entries[0].request.options["image"]
    image = open_picture(record, "image")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(picture(seed=77)))


def test_again_copies_what_is_new(used, tmp_path, picture):
    backup(used, tmp_path / "backup")
    used.add(picture(seed=9))
    done = backup(used, tmp_path / "backup")
    assert (done.pictures, done.new) == (4, 1) and seeds(tmp_path / "backup") == [9, 2, 1, 0]


def test_a_lost_picture_is_named_and_the_rest_copied(used, tmp_path):
    newest, middle, _ = used.walk()
    newest.path.unlink()
    middle.path.write_bytes(b"damaged")
    done = backup(used, tmp_path / "backup")
    assert done.new == 1 and set(done.missing) == {newest.path.name, middle.path.name}
    back = restore(tmp_path / "backup", tmp_path / "new")
    assert back.new == 1 and set(back.missing) == set(done.missing)


def test_what_is_in_the_way(used, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("dear")
    with pytest.raises(FileError, match="other files"):
        backup(used, tmp_path / "full")
    with pytest.raises(FileError, match="cannot be written"):
        backup(used, tmp_path / "full" / "letter" / "backup")
    with pytest.raises(FileError, match="no backup"):
        restore(tmp_path / "full", tmp_path / "new")
    backup(used, tmp_path / "backup")
    with pytest.raises(FileError, match="has a history"):
        restore(tmp_path / "backup", used.folder)
    data = bytearray((tmp_path / "backup" / "history.sqlite").read_bytes())
    data[5000:9000] = b"\0" * 4000
    (tmp_path / "backup" / "history.sqlite").write_bytes(data)
    with pytest.raises(FileError, match="damaged"):
        restore(tmp_path / "backup", tmp_path / "new")
    assert not (tmp_path / "new" / "history.sqlite").exists()


def test_a_backup_of_an_older_schema_is_brought_forward(used, tmp_path):
    from pictura.history.database import migrate

    used.engine  # noqa: B018 (opened with the newest schema, then taken back)
    migrate(used.engine, "0001")
    backup(used, tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "new")
    assert seeds(tmp_path / "new") == [2, 1, 0]


WRITER = """
import sys
from PIL import Image
from pictura.history import History
from pictura.picture import Picture
from pictura.request import Request
with History(None, sys.argv[1]) as history:
    for seed in range(10_000):
        image = Image.new("RGB", (64, 64), (seed % 256, seed // 256, 7))
        history.add(Picture(image=image, request=Request(prompt="a cat", seed=seed)))
        print(seed, flush=True)  # acknowledged
"""
BACKUP = """
import sys
from pictura.history import History
from pictura.history.backup import backup
with History(None, sys.argv[1]) as history:
    print("ready", flush=True)
    backup(history, sys.argv[2])
print("done", flush=True)
"""


def whole(folder):
    """The seeds in a history, each of whose files is there."""
    with History(None, folder) as history:
        assert check(history).sound
    return seeds(folder)


def test_beside_a_process_that_writes_and_one_that_is_killed(tmp_path):
    home, target = tmp_path / "home", tmp_path / "backup"
    with History(None, home) as history:
        history.open()
    command = [sys.executable, "-c", WRITER, str(home)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as writer:
        told = 0
        while told < 50:
            told = int(writer.stdout.readline())
        killed = 0
        for pause in (0.0, 0.01, 0.02):
            command = [sys.executable, "-c", BACKUP, str(home), str(target)]
            with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout.readline() == "ready\n"
                time.sleep(pause)
                process.kill()
                killed += process.stdout.readline() != "done\n"
            if (target / "history.sqlite").exists():
                whole(target)
        assert killed
        with History(None, home) as history:
            while told < 100:
                told = int(writer.stdout.readline())
            backup(history, target)
        writer.kill()
    found = whole(target)
    assert found == list(range(len(found)))[::-1] and len(found) > told
    whole(home)


RESTORE = """
import sys
from pictura.history.backup import restore
print("ready", flush=True)
restore(sys.argv[1], sys.argv[2])
"""


def test_a_restore_that_is_killed_is_begun_again(used, tmp_path, picture):
    for seed in range(3, 60):
        used.add(picture(seed=seed))
    backup(used, tmp_path / "backup")
    for pause in (0.0, 0.01, 0.02):
        command = [sys.executable, "-c", RESTORE, str(tmp_path / "backup"), str(tmp_path / "new")]
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(pause)
            process.kill()
        if (tmp_path / "new" / "history.sqlite").exists():
            whole(tmp_path / "new")
            shutil.rmtree(tmp_path / "new")
    restore(tmp_path / "backup", tmp_path / "new")
    assert len(whole(tmp_path / "new")) == 60


# Whether it is whole


def test_what_is_lost_is_named(history, picture):
    twin = picture(seed=1)
    ids = [history.add(made).id for made in (picture(seed=0), twin, twin, picture(seed=2))]
    assert check(history).sound and check(history).pictures == 4
    history.get(ids[0]).path.unlink()
    history.get(ids[1]).path.write_bytes(b"x")
    found = check(history)
    assert found.missing == (ids[0],) and set(found.damaged) == {ids[1], ids[2]} and not found.sound
    history.add(twin)  # the same picture made again mends the file
    assert check(history).damaged == ()


def test_only_what_is_nobodys_for_an_hour_is_cleaned(history, picture):
    kept, gone = history.add(picture(seed=0)), history.add(picture(seed=1))
    remove(history, gone.id)
    part = kept.path.with_name(".0123456789abcdef.part")
    part.write_bytes(b"half a pic")
    found = check(history, clean=True)
    assert (found.orphans, found.parts) == (0, 0) and gone.path.exists()  # somebody may be at it
    for path in (kept.path, gone.path, part):
        os.utime(path, (time.time() - 4000,) * 2)
    found = check(history)
    assert (found.orphans, found.parts, found.cleaned) == (1, 1, False) and found.sound
    assert found.bytes == 10 + gone.path.stat().st_size
    assert check(history, clean=True).orphans == 1
    assert kept.path.exists() and not gone.path.exists() and not part.exists()
    assert check(history).orphans == 0


def test_a_file_that_is_needed_again_is_not_cleaned(history, picture):
    entry = history.add(picture(seed=1))
    remove(history, entry.id)
    os.utime(entry.path, (time.time() - 4000,) * 2)
    again = history.add(picture(seed=1))
    assert check(history, clean=True).orphans == 0 and check(history).sound and again.path.exists()
    remove(history, again.id)
    assert check(history, clean=True).orphans == 0  # it was touched just now


def test_a_damaged_database_says_so(used, tmp_path):
    used.close()
    with sqlite3.connect(used.folder / "history.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        page = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_pictures_seed'"
        ).fetchone()[0]
    connection.close()
    data = bytearray((used.folder / "history.sqlite").read_bytes())
    data[(page - 1) * size + 3 : (page - 1) * size + 5] = b"\0\0"  # the index says it has no entries
    (used.folder / "history.sqlite").write_bytes(data)
    found = check(used)
    assert found.database and not found.sound


def test_removing(history, picture):
    a, b = history.add(picture("red cat", seed=0)), history.add(picture("blue cat", seed=1))
    history.rate(a.id, stars=3)
    history.choose(a.id, b.id)
    history.collect("all", a.id, b.id)
    with pytest.raises(NotFound):
        remove(history, a.id, "f" * 32)
    assert history.count() == 2
    remove(history, a.id)
    assert [e.id for e in history.walk()] == [b.id] and history.search("red").entries == ()
    assert history.collections() == {"all": 1} and list(history.preferences()) == []
    assert [e.id for e in history.search("cat").entries] == [b.id]
    c = history.add(picture("green cat", seed=2))
    assert [e.id for e in history.search("cat").entries] == [c.id, b.id]
    assert check(history).sound
