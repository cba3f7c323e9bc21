"""The backups that docs/server.md tells of for a service, there and back by its own commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pictura
from documented import block, put
from pictura.errors import InputError
from pictura.history import History
from pictura.history.backup import backup
from pictura.history.checking import check
from postgresql import Postgres

SOURCE = Path(pictura.__file__).parents[1]
USER = 61234  # whom the service's folders belong to


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """A function that runs the commands of a block of docs/server.md, with folders of the test's."""
    for name in ("lib", "cache", "backup", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "pictura").write_text(f'#!/bin/sh\nexec {sys.executable} -m pictura "$@"\n')
    (tmp_path / "bin" / "pictura").chmod(0o755)
    if os.geteuid() == 0:
        for name in ("lib", "cache"):
            os.chown(tmp_path / name, USER, USER)
    places = {
        "/var/lib/pictura": str(tmp_path / "lib"),
        "/var/cache/pictura": str(tmp_path / "cache"),
        "/backup": str(tmp_path / "backup"),
        "chown -R pictura:": f"chown -R {USER if os.geteuid() == 0 else os.geteuid()}",  # who is not here
        "runuser -u pictura -- /opt/pictura/bin/": "",
        "runuser -u postgres -- ": "runuser -u postgres -- " if os.geteuid() == 0 else "",
    }
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))

    def run(containing, **environment):
        lines = block("server.md", containing).splitlines()
        assert all(line.startswith("$ ") for line in lines)
        text = "\n".join(line.removeprefix("$ ") for line in lines)
        text = put(text, {shown: place for shown, place in places.items() if shown in text})
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text], env={**os.environ, **environment}, cwd="/",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}"

    return run


def used_by_a_service(history, picture):
    """A picture that somebody liked and one that began with a picture which a client had sent."""
    from pictura.attachments import recorded

    began = recorded(picture(seed=77).image, "image")
    entry = history.add(picture("a cat", seed=3))
    history.rate(entry.id, stars=4)
    history.add(picture(seed=4, options={"image": began}))


def is_there_again(history, picture, tmp_path):
    from pictura.attachments import open_picture

    assert check(history).sound
    assert [(e.request.seed, e.stars) for e in history.search("cat").entries] == [(4, None), (3, 4)]
    open_picture(history.search(seed=4).entries[0].request.options["image"], "image")
    owners = {path.stat().st_uid for place in ("lib", "cache") for path in (tmp_path / place).rglob("*")}
    assert owners == {USER if os.geteuid() == 0 else os.geteuid()}
    history.add(picture(seed=5))  # numbers go on where they were
    assert history.count() == 3


def lost(tmp_path):
    for place in ("lib", "cache"):
        for path in (tmp_path / place).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_a_service_on_sqlite_there_and_back(documented, tmp_path, picture, monkeypatch):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))
    with History(None, tmp_path / "lib") as history:
        used_by_a_service(history, picture)
        monkeypatch.delenv("PICTURA_CACHE")
        documented("pictura history backup /backup")
    lost(tmp_path)
    documented("pictura history restore /backup")
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))
    with History(None, tmp_path / "lib") as history:
        is_there_again(history, picture, tmp_path)


def test_a_service_on_postgresql_there_and_back(documented, tmp_path, picture, monkeypatch):
    if not Postgres.installed():
        pytest.skip("PostgreSQL is not installed")
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    monkeypatch.setenv("PATH", os.pathsep.join([os.environ["PATH"], *map(str, newest)]))
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))
    for turn in ("there", "back"):
        server = Postgres("postgres").start()
        monkeypatch.setenv("PGHOST", str(server.folder))
        monkeypatch.setenv("PGUSER", "pictura")  # whom the socket would know by name
        try:
            if turn == "there":
                documented("createuser pictura &&", PGUSER="postgres")
            else:
                documented("pg_restore", PGUSER="postgres")
                documented("history check --database")
            with History("postgresql:///pictura", tmp_path / "lib") as history:
                if turn == "there":
                    used_by_a_service(history, picture)
                    with pytest.raises(InputError, match="pg_dump"):
                        backup(history, tmp_path / "elsewhere")
                    documented("pg_dump", PGUSER="postgres")
                else:
                    is_there_again(history, picture, tmp_path)
        finally:
            server.stop()
        if turn == "there":
            lost(tmp_path)
