"""A real PostgreSQL server for tests, without a network port, started on a socket of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def _program(name: str) -> str | None:
    places = [
        shutil.which(name),
        *map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)),
    ]
    return next((place for place in places if place), None)


class Postgres:
    """`start` makes it, `stop` ends it; `url(name)` is a database of it."""

    def __init__(self, user: str = "pictura") -> None:
        """user: the superuser, who may all; the server asks nobody for a password."""
        self.user = user
        # Not in pytest's folder, which the user of the server may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="pictura-pg-"))
        self._quiet = {
            "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.folder,
        }  # fmt: skip

    @staticmethod
    def installed() -> bool:
        return _program("initdb") is not None and _program("pg_ctl") is not None

    def start(self) -> Postgres:
        user = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            subprocess.run(["chown", "postgres:postgres", self.folder], check=True)
        initdb, control = _program("initdb"), _program("pg_ctl")
        data, log = str(self.folder / "data"), str(self.folder / "log")
        subprocess.run([*user, initdb, "-D", data, "-U", self.user, "-A", "trust"], **self._quiet)
        self._control = [*user, control, "-D", data, "-w", "-l", log]
        self._options = f"-k {self.folder} -c listen_addresses='' -c max_connections=60"
        subprocess.run([*self._control, "-o", self._options, "start"], **self._quiet)
        return self

    def url(self, name: str) -> str:
        return f"postgresql://{self.user}@/{name}?host={self.folder}"

    def create(self, name: str) -> str:
        """The URL of a new, empty database."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def restart(self) -> None:
        """As after a crash: nobody's connection survives."""
        subprocess.run([*self._control, "-m", "immediate", "-o", self._options, "restart"], **self._quiet)

    def cut(self, name: str) -> None:
        """End every connection to a database."""
        import psycopg

        said = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(said, [name])

    def count(self, name: str, table: str) -> int:
        """How many rows a table has."""
        import psycopg

        with psycopg.connect(self.url(name)) as connection:
            return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    def stop(self) -> None:
        subprocess.run([*self._control, "-m", "fast", "stop"], **{**self._quiet, "check": False})
        shutil.rmtree(self.folder, ignore_errors=True)
