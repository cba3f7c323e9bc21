"""Whether the database has changed since the last look, so that those who wait may look often."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

__all__ = ["Changes"]

AT_LEAST = 0.5  # seconds between two looks though nothing has changed: leases end by themselves
REMOTE = 0.02  # and where the database does not say at once whether anything has


class Changes:
    """SQLite counts the commits of others for each connection; other databases are looked at regularly.

    Belongs to one thread at a time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._local = engine, engine.dialect.name == "sqlite"
        self._connection: Any = None
        self._version: object = None
        self._looked = 0.0

    def since(self) -> bool:
        """Whether it is worth looking."""
        now = time.monotonic()
        if not self._local:
            changed = now >= self._looked + REMOTE
        else:
            version = self._count()
            changed = version is None or version != self._version or now >= self._looked + AT_LEAST
            self._version = version
        if changed:
            self._looked = now
        return changed

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _count(self) -> object:
        try:
            if self._connection is None:
                self._connection = self._engine.raw_connection()
            return self._connection.cursor().execute("PRAGMA data_version").fetchone()[0]
        except (DBAPIError, OSError, self._engine.dialect.loaded_dbapi.Error):
            with suppress(Exception):
                self.close()
            return None
