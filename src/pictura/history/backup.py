"""A second copy of the history, and the way back.

A backup is a folder like the history's own: `history.sqlite` and `images/`; beside them `attachments/`, the
pictures that requests began with, which are otherwise in the user's cache. It may be taken while others
write: first the database as it is at one moment, then every picture that it speaks of, all of which are there
since a file is stored before its row; last the database gets its name. So whenever a backup is stopped, the
folder holds the one before, whole. Taking it again copies what is new.

A history on PostgreSQL is dumped by its own tools, and then its pictures are copied; see
docs/tutorials/history.md.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pictura.attachments import kept
from pictura.errors import FileError, InputError, shown
from pictura.history.blobs import Blobs, read
from pictura.history.database import open_database
from pictura.history.store import History
from pictura.picture.files import atomic, hold, sync

__all__ = ["Copied", "backup", "restore"]

NAME = "history.sqlite"
PART = f".{NAME}.part"


@dataclass(frozen=True, kw_only=True)
class Copied:
    """pictures: files that the copy speaks of. new, bytes: those copied now. missing: names of files that
    were gone or damaged. attachments: pictures that requests began with, as far as they are here."""

    folder: Path
    pictures: int
    new: int
    bytes: int
    attachments: int
    missing: tuple[str, ...]


def backup(history: History, target: str | os.PathLike[str]) -> Copied:
    """Bring the folder `target`, which is new or holds an older backup, to the state of `history`.

    FileError where it holds something else, cannot be written to or another backup is at it; InputError for
    a history on PostgreSQL.
    """
    if history.engine.dialect.name != "sqlite":
        raise InputError("a history on PostgreSQL is backed up by pg_dump, then a copy of its images folder")
    target = Path(target)
    with _told(target):
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()) and not any((target / name).exists() for name in (NAME, PART)):
            raise FileError(f"{shown(str(target))} holds other files; choose a new folder or an older backup")
        with _held(target), _whole(target) as part:
            connection = history.engine.raw_connection()
            try:
                _copy_database(connection.driver_connection, part)
            finally:
                connection.close()
            attachments = _copy_attachments(part, kept, lambda digest: _attachment(target, digest))
            return _copy_pictures(part, history.blobs, target, attachments)


def restore(source: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Copied:
    """Make the backup `source` the history of `folder`, which has none; every file is compared with its
    digest.

    The schema is brought to the newest. A restore that was stopped is begun again by the same call. FileError
    where there is a history already, or `source` is no sound backup.
    """
    source, folder = Path(source), Path(folder)
    if not (source / NAME).is_file():
        raise FileError(f"{shown(str(source))} is no backup; give the folder that `history backup` wrote")
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with _held(folder):
            if (folder / NAME).exists():
                raise FileError(f"{shown(str(folder))} has a history; give a folder that has none")
            with _whole(folder) as part:
                try:
                    with closing(sqlite3.connect(source / NAME)) as original:
                        _copy_database(original, part)
                except sqlite3.DatabaseError as error:
                    raise FileError(f"{shown(str(source / NAME))} is damaged: {error}") from error
                open_database(f"sqlite:///{part}", folder).dispose()
                attachments = _copy_attachments(part, lambda digest: _attachment(source, digest), kept)
                return _copy_pictures(part, Blobs(source / "images"), folder, attachments)


def _copy_database(original: sqlite3.Connection, part: Path) -> None:
    """All of it in one step, which sees one state and keeps no writer waiting."""
    with closing(sqlite3.connect(part)) as copy:
        original.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, readable where nothing can be written
        if (told := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise FileError(f"the database is damaged: {told}")


def _copy_attachments(database: Path, place: Callable[[str], Path], target: Callable[[str], Path]) -> int:
    """How many of the files that requests speak of are there now. Those that were never kept are not missed:
    weights, for one, are too large."""
    digests: set[str] = set()
    with closing(sqlite3.connect(database)) as connection:
        told = "SELECT request FROM {} WHERE request LIKE '%\"sha256\"%'"
        for table in ("pictures", "tasks"):
            for (request,) in connection.execute(told.format(table)):
                digests |= set(re.findall(r'"sha256":"([0-9a-f]{64})"', request))
    number = 0
    for digest in digests:
        with suppress(FileError):
            copy = target(digest)
            if not _there(place(digest), copy):
                data = read(place(digest), digest)
                copy.parent.mkdir(parents=True, exist_ok=True)
                with atomic(copy, overwrite=True) as file:
                    file.write(data)
            number += 1
    return number


def _attachment(folder: Path, digest: str) -> Path:
    return folder / "attachments" / digest[:2] / digest


def _copy_pictures(database: Path, blobs: Blobs, target: Path, attachments: int) -> Copied:
    copies = Blobs(target / "images")
    number = new = size = 0
    missing: list[str] = []
    with closing(sqlite3.connect(database)) as connection:
        for digest, suffix in connection.execute("SELECT DISTINCT sha256, suffix FROM pictures"):
            number += 1
            place, copy = blobs.path(digest, suffix), copies.path(digest, suffix)
            if _there(place, copy):
                continue
            try:
                data = read(place, digest)
            except FileError:
                missing.append(place.name)
                continue
            copies.put(data, suffix)
            new += 1
            size += len(data)
    return Copied(
        folder=target, pictures=number, new=new, bytes=size, missing=tuple(missing), attachments=attachments
    )


def _there(place: Path, copy: Path) -> bool:
    """Whether a file was copied before: files appear whole, and one name is one content."""
    try:
        return copy.stat().st_size == place.stat().st_size
    except OSError:
        return False


@contextmanager
def _whole(folder: Path) -> Iterator[Path]:
    """A database that becomes the folder's when the block ends well."""
    part = folder / PART
    for path in (part, *(part.with_name(f"{part.name}{end}") for end in ("-journal", "-wal", "-shm"))):
        path.unlink(missing_ok=True)  # of one that was stopped
    yield part
    os.replace(part, folder / NAME)
    sync(folder)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        hold(handle)
        yield
    except BlockingIOError:
        raise FileError(f"another process is writing to {shown(str(folder))}; wait for it") from None
    finally:
        os.close(handle)


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Errors of the file system as one sentence."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{shown(str(folder))} cannot be written to: {error.strerror or error}") from error
    except sqlite3.OperationalError as error:
        raise FileError(f"{shown(str(folder))} cannot be written to: {error}") from error
