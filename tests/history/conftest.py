"""Histories on SQLite and on a real PostgreSQL server, started for these tests on a socket of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from PIL import Image

from pictura.history import History
from pictura.history.claims import Claims
from pictura.history.jobs import Jobs
from pictura.history.tables import METADATA
from pictura.picture import Picture
from pictura.request import Request


def _program(name: str) -> str | None:
    places = [
        shutil.which(name),
        *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)),
    ]
    return next((place for place in places if place), None)


@pytest.fixture(scope="session")
def postgres(request):
    """The URL of a server without a network port; its databases are made by `database`."""
    initdb, server = _program("initdb"), _program("pg_ctl")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed")
    # Not in pytest's folder, which the user of the server may not enter.
    folder = Path(tempfile.mkdtemp(prefix="pictura-pg-"))
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    user = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run(["chown", "postgres:postgres", folder], check=True)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    subprocess.run([*user, initdb, "-D", folder / "data", "-U", "pictura", "-A", "trust"], **quiet)
    options = f"-k {folder} -c listen_addresses='' -c max_connections=60"
    control = [*user, server, "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
    subprocess.run([*control, "-o", options, "start"], **quiet)
    yield f"postgresql://pictura@/{{}}?host={folder}"
    subprocess.run([*control, "-m", "fast", "stop"], **{**quiet, "check": False})


@pytest.fixture(scope="session")
def _database(postgres):
    import psycopg

    with psycopg.connect(postgres.format("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE history")
    return postgres.format("history")


@pytest.fixture
def database(_database):
    """The URL of an empty database."""
    import psycopg

    with psycopg.connect(_database, autocommit=True) as connection:
        there = connection.execute("SELECT 1 FROM pg_tables WHERE tablename = 'pictures'").fetchone()
        if there:
            tables = ", ".join(METADATA.tables)
            connection.execute(f"TRUNCATE {tables} RESTART IDENTITY")
    return _database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request):
    """None is SQLite in the history's own folder."""
    return None if request.param == "sqlite" else request.getfixturevalue("database")


@pytest.fixture
def history(url, tmp_path):
    with History(url, tmp_path / "home") as made:
        yield made


@pytest.fixture
def jobs(history):
    return Jobs(history)


@pytest.fixture
def claims(history):
    return Claims(history)


@pytest.fixture
def picture():
    """A function that gives small pictures, each another."""

    def make(prompt: str = "a cat", seed: int = 7, **said: object) -> Picture:
        image = Image.new("RGB", (8, 6), (seed % 256, len(prompt) % 256, seed // 256 % 256))
        values = {"model": "toy", "num_steps": 4, "guidance_scale": 2.0, "sampler": "euler", **said}
        return Picture(
            image=image, request=Request(prompt=prompt, seed=seed, **values), model_digest="0" * 64
        )

    return make
