"""Opening the database: SQLite or PostgreSQL by URL, durable commits, the newest schema."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError

from pictura.errors import FileError, InputError, PicturaError

__all__ = ["DatabaseError", "begin", "default_folder", "is_down", "migrate", "open_database"]


class DatabaseError(PicturaError):
    """The database cannot be reached or refuses; what was acknowledged before is not affected."""

    http_status = 503


def default_folder() -> Path:
    """`PICTURA_HOME`, or where the platform keeps a user's data."""
    if chosen := os.environ.get("PICTURA_HOME"):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("pictura", appauthor=False)


def open_database(url: str | None, folder: Path) -> Engine:
    """An engine for `url` (sqlite:///PATH or postgresql://...; None is SQLite in `folder`), schema included.

    InputError for a URL that is none, DatabaseError where the database is not there.
    """
    place = _url(url, folder)
    if place.get_backend_name() == "sqlite":
        engine = _sqlite(place)
    else:
        options = {"connect_timeout": 10, "keepalives": 1, "keepalives_idle": 15}
        engine = create_engine(place, pool_pre_ping=True, pool_recycle=1800, connect_args=options)
    migrate(engine)
    return engine


@contextmanager
def begin(engine: Engine, *, reading: bool = False) -> Iterator[Connection]:
    """A transaction that is durable when the block has ended; DatabaseError where it could not be.

    One that is only `reading` sees one state of the database and waits for no writer.
    """
    try:
        with engine.connect().execution_options(reading=reading) as connection, connection.begin():
            yield connection
    except DBAPIError as error:
        if not is_down(error):
            raise
        raise DatabaseError(f"the database is not to be reached: {_reason(error)}") from error


def is_down(error: DBAPIError) -> bool:
    """Whether the database itself is the trouble, rather than what it was asked."""
    return error.connection_invalidated or isinstance(error, OperationalError)


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the schema to `revision`, up or down. Processes that start together take turns."""
    if revision == "head" and _is_current(engine):
        return
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(files(__package__) / "migrations"))
    script = ScriptDirectory.from_config(config)
    try:
        with engine.connect() as connection:
            _alone(connection)
            now = MigrationContext.configure(connection).get_current_revision()
            known = {entry.revision for entry in script.walk_revisions()}
            if now is not None and now not in known:
                raise InputError(
                    f"the history was written by a newer Pictura (schema {now}); upgrade this one"
                )
            target = script.get_current_head() if revision == "head" else revision
            if now == target or (target == "base" and now is None):
                connection.rollback()
                return
            config.attributes["connection"] = connection
            older = target == "base" or _position(script, now) > _position(script, target)
            (command.downgrade if older else command.upgrade)(config, target or "head")
            connection.commit()
    except DBAPIError as error:
        if not is_down(error):
            raise
        raise DatabaseError(f"the database is not to be reached: {_reason(error)}") from error


def _is_current(engine: Engine) -> bool:
    """Whether the schema is the newest, found out without Alembic and without waiting for writers."""
    names = (path.name for path in (files(__package__) / "migrations" / "versions").iterdir())
    newest = max(name[:4] for name in names if re.match(r"[0-9]{4}_.+\.py", name))
    try:
        with engine.connect().execution_options(reading=True) as connection:
            asked = connection.exec_driver_sql("SELECT version_num FROM alembic_version")
            return asked.scalar() == newest
    except DBAPIError as error:
        if is_down(error) and engine.dialect.name != "sqlite":  # SQLite says so of a missing table
            raise DatabaseError(f"the database is not to be reached: {_reason(error)}") from error
        return False


def _position(script: Any, revision: str | None) -> int:
    order = [entry.revision for entry in reversed(list(script.walk_revisions()))]
    return order.index(revision) if revision in order else -1


def _alone(connection: Connection) -> None:
    """Until the transaction ends nobody else migrates."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7301941)")


def _url(url: str | None, folder: Path) -> URL:
    if url is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise FileError(f"the history cannot be kept in {str(folder)!r}: {reason}") from error
        return URL.create("sqlite+pysqlite", database=str(folder / "history.sqlite"))
    try:
        place = make_url(url)
        backend = place.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        backend = ""
    if backend not in ("sqlite", "postgresql"):
        raise InputError(
            "the history's database is no URL; give sqlite:///PATH or postgresql://USER@HOST/NAME"
        )
    return place.set(drivername="sqlite+pysqlite" if backend == "sqlite" else "postgresql+psycopg")


def _sqlite(place: URL) -> Engine:
    if place.database in (None, "", ":memory:"):
        raise InputError("a history in memory would be lost; give sqlite:///PATH")
    engine = create_engine(place, connect_args={"timeout": 30, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        try:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
                connection.execute(f"PRAGMA {pragma}")
        except Exception as error:
            raise FileError(f"the history {place.database!r} cannot be used: {error}") from error

    @event.listens_for(engine, "begin")
    def begin_now(connection: Connection) -> None:
        # A reader that turns writer may find the database changed and fail; taking the lock first cannot.
        reading = connection.get_execution_options().get("reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _reason(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
