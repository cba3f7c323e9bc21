"""Whether the history is whole: every picture's file is there and is what was stored; nothing lies about."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, text

from pictura.errors import FileError
from pictura.history.blobs import read
from pictura.history.database import begin
from pictura.history.store import History
from pictura.history.tables import pictures

__all__ = ["Checked", "check"]

AGE = 3600.0  # seconds after which a file without a row is nobody's: files are stored before their rows


@dataclass(frozen=True, kw_only=True)
class Checked:
    """missing, damaged: ids of pictures whose file is gone, or another than was stored. orphans: files that
    no picture has (any more). parts: what processes left that were killed while they wrote. bytes: of orphans
    and parts. database: what the database says of itself, None where all is well."""

    pictures: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    orphans: int
    parts: int
    bytes: int
    database: str | None
    cleaned: bool

    @property
    def sound(self) -> bool:
        """Whether nothing is lost."""
        return not self.missing and not self.damaged and self.database is None


def check(history: History, *, clean: bool = False) -> Checked:
    """Read everything and compare. clean: remove orphans and parts, which must be an hour old to count."""
    missing, damaged, owned = list[str](), list[str](), dict[bytes, str | None]()
    number = 0
    for number, (id, digest, suffix) in enumerate(_rows(history), 1):  # noqa: B007 (counted)
        key = bytes.fromhex(digest)
        if key not in owned:
            owned[key] = _state(history.blobs.path(digest, suffix), digest)
        if owned[key] is not None:
            (missing if owned[key] == "missing" else damaged).append(id)
    orphans = parts = size = 0
    for path, length in _old_files(history.blobs.folder):
        if path.name.startswith("."):
            parts += 1
        elif _key(path) in owned:
            continue
        else:
            orphans += 1
        size += length
        if clean:
            path.unlink(missing_ok=True)
    return Checked(
        pictures=number,
        missing=tuple(missing),
        damaged=tuple(damaged),
        orphans=orphans,
        parts=parts,
        bytes=size,
        database=_database(history),
        cleaned=clean,
    )


def _rows(history: History) -> Iterator[tuple[str, str, str]]:
    """(id, digest, suffix) of every picture, a part at a time."""
    last = 0
    while True:
        wanted = select(pictures.c.seq, pictures.c.id, pictures.c.sha256, pictures.c.suffix)
        wanted = wanted.where(pictures.c.seq > last).order_by(pictures.c.seq).limit(1000)
        with begin(history.engine, reading=True) as connection:
            rows = connection.execute(wanted).all()
        if not rows:
            return
        yield from ((row.id, row.sha256, row.suffix) for row in rows)
        last = rows[-1].seq


def _state(path: Path, digest: str) -> str | None:
    if not path.is_file():
        return "missing"
    try:
        read(path, digest)
    except FileError:
        return "damaged"
    return None


def _old_files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Files under `folder` that nobody has touched for an hour, and their sizes."""
    before = time.time() - AGE
    for path in sorted(folder.glob("??/*")):
        try:
            state = path.stat()
        except FileNotFoundError:  # a part that has just got its name
            continue
        if state.st_mtime < before:
            yield path, state.st_size


def _key(path: Path) -> bytes | None:
    try:
        return bytes.fromhex(path.stem)
    except ValueError:
        return None


def _database(history: History) -> str | None:
    if history.engine.dialect.name != "sqlite":
        return None  # PostgreSQL looks after itself
    with begin(history.engine, reading=True) as connection:
        told = str(connection.execute(text("PRAGMA quick_check(1)")).scalar_one())
    return None if told == "ok" else told
