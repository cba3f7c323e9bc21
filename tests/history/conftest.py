"""Histories on SQLite and on a real PostgreSQL server, started for these tests on a socket of its own."""

from __future__ import annotations

import pytest
from PIL import Image

from pictura.history import History
from pictura.history.claims import Claims
from pictura.history.jobs import Jobs
from pictura.history.tables import METADATA
from pictura.picture import Picture
from pictura.request import Request
from postgresql import Postgres


@pytest.fixture(scope="session")
def _database():
    if not Postgres.installed():
        pytest.skip("PostgreSQL is not installed")
    server = Postgres().start()
    yield server.create("history")
    server.stop()


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
