"""Pictures kept for good: the file, then the row, then the answer; found, rated and gathered."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from pictura.errors import NotFound, ParameterError, shown
from pictura.history.blobs import Blobs
from pictura.history.database import begin, default_folder, open_database
from pictura.history.entries import Entry, Page, Pages
from pictura.history.search import MAX_LIMIT, Query, found, places
from pictura.history.tables import choices, collected, collections, pictures, ratings
from pictura.picture import Picture
from pictura.request import Request

__all__ = ["Entry", "History", "Page", "new_id", "now"]

MAX_NOTE = 10_000  # characters
SUFFIX = ".png"
# Connections of a process that forked this one: closing them here would close them there.
_INHERITED: list[object] = []
_opening = threading.Lock()


class History:
    """A database and a folder of files. Safe to use from several threads and processes.

    url: sqlite:///PATH or postgresql://...; None is SQLite in `folder`. folder: None is `PICTURA_HOME` or
    the platform's place for a user's data. With neither, `PICTURA_DATABASE` may name the
    database. Every method that changes something returns when the change would survive a loss of power.
    DatabaseError, FileError where that cannot be had.
    """

    def __init__(self, url: str | None = None, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder)
        self.blobs = Blobs(self.folder / "images")
        self._url = os.environ.get("PICTURA_DATABASE") or None if url is None and folder is None else url
        self._opened: tuple[int, Any] | None = None  # by which process, and what

    @property
    def engine(self) -> Any:
        """Opened at first use in each process: connections do not survive a fork."""
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            with _opening:
                if not self.is_open:
                    _INHERITED.append(self._opened)
                    self._opened = os.getpid(), open_database(self._url, self.folder)
                opened = self._opened
        assert opened is not None
        return opened[1]

    @property
    def is_open(self) -> bool:
        """Whether the database is open in this process."""
        return self._opened is not None and self._opened[0] == os.getpid()

    def open(self) -> Self:
        """Open the database now, so that its first use need not. DatabaseError, FileError, InputError."""
        self.engine  # noqa: B018
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        if self.is_open:
            self.engine.dispose()
            self._opened = None

    # Pictures

    def add(self, picture: Picture) -> Entry:
        """Keep `picture`. It is a new entry each time, as it was made each time; its file is stored once."""
        return self.add_all([picture])[0]

    def add_all(self, pictures: Sequence[Picture]) -> list[Entry]:
        """Keep several at once, all or none of them, for little more than one costs."""
        if len(pictures) > 1:
            with ThreadPoolExecutor(min(len(pictures), 4)) as pool:  # most of the time goes into compressing
                contents = list(pool.map(_encoded, pictures))
        else:
            contents = list(map(_encoded, pictures))
        digests = [self.blobs.put(content, SUFFIX) for content in contents]
        with begin(self.engine) as connection:
            rows = [insert_picture(connection, *pair) for pair in zip(pictures, digests, strict=True)]
            return list(map(self.entry, rows))

    def get(self, id: str) -> Entry:
        """NotFound where there is no such picture."""
        with begin(self.engine, reading=True) as connection:
            return self.entry(_row(connection, id))

    def search(self, words: str = "", *, limit: int = 50, cursor: str | None = None, **filters: Any) -> Page:
        """The newest pictures that have all `words` in prompt or negative prompt and fit the filters.

        filters: see `search.Query`. ParameterError for what is no filter, limit or cursor.
        """
        query = Query.of(words=words, **filters)
        with begin(self.engine, reading=True) as connection:
            rows, following = found(connection, query, limit, cursor)
        return Page(entries=tuple(map(self.entry, rows)), next=following)

    def pages(self, words: str = "", *, every: int = 50, **filters: Any) -> Pages:
        """Where each page of `every` pictures of a search begins: any of them can be shown at once."""
        query = Query.of(words=words, **filters)
        with begin(self.engine, reading=True) as connection:
            total, cursors = places(connection, query, every)
        return Pages(total=total, cursors=cursors)

    def walk(self, words: str = "", **filters: Any) -> Iterator[Entry]:
        """Every picture that `search` would find, newest first, without holding the database."""
        cursor: str | None = None
        while True:
            page = self.search(words, limit=MAX_LIMIT, cursor=cursor, **filters)
            yield from page.entries
            if (cursor := page.next) is None:
                return

    def count(self) -> int:
        """How many pictures there are."""
        with begin(self.engine, reading=True) as connection:
            return int(connection.execute(select(func.count()).select_from(pictures)).scalar_one())

    def entry(self, row: Row[Any]) -> Entry:
        """A row of `pictures` as a value."""
        return Entry(
            id=row.id,
            made_at=row.made_at,
            sha256=row.sha256,
            size=(row.width, row.height),
            request=Request.from_json(row.request),
            model_digest=row.model_digest,
            details=json.loads(row.details),
            job=row.job_id,
            index=row.job_index,
            stars=row.stars,
            note=row.note,
            path=self.blobs.path(row.sha256, row.suffix),
        )

    # What people think of them

    def rate(self, id: str, *, stars: int | None = None, note: str | None = None) -> Entry:
        """Give a picture 1 to 5 stars or a note; what is None stays as it was.

        stars: 0 withdraws those it had, and it counts as never rated; what was said before stays recorded.
        ParameterError, InputError.
        """
        if stars is not None and (
            isinstance(stars, bool) or not isinstance(stars, int) or not 0 <= stars <= 5
        ):
            message = f"stars is {shown(stars)}; give a whole number 1..5, or 0 to withdraw them"
            raise ParameterError(message, parameter="stars")
        if note is not None:
            Request(prompt=note).validate()  # a text like any other
        changed = {name: value for name, value in (("stars", stars), ("note", note)) if value is not None}
        with begin(self.engine) as connection:
            _row(connection, id)
            if changed:
                connection.execute(insert(ratings).values(picture_id=id, made_at=now(), **changed))
                kept = {name: None if value == 0 else value for name, value in changed.items()}
                connection.execute(update(pictures).where(pictures.c.id == id).values(**kept))
            return self.entry(_row(connection, id))

    def choose(self, winner: str, loser: str) -> None:
        """Somebody liked `winner` better than `loser`. InputError where there is no such picture."""
        if winner == loser:
            raise ParameterError("a picture cannot be better than itself; give two", parameter="loser")
        with begin(self.engine) as connection:
            for id in (winner, loser):
                _row(connection, id)
            connection.execute(insert(choices).values(winner_id=winner, loser_id=loser, made_at=now()))

    def preferences(self) -> Iterator[tuple[Entry, Entry]]:
        """Every choice that was made, (winner, loser), oldest first."""
        with begin(self.engine, reading=True) as connection:
            pairs = connection.execute(
                select(choices.c.winner_id, choices.c.loser_id).order_by(choices.c.seq)
            ).all()
        for winner, loser in pairs:
            yield self.get(winner), self.get(loser)

    # Collections

    def collect(self, name: str, *ids: str) -> None:
        """Put pictures into the collection `name`, which is made where there is none."""
        if not isinstance(name, str) or not 1 <= len(name.strip()) <= 200 or "\0" in name:
            raise ParameterError(
                f"collection is {shown(name)}; give a name of 1..200 characters", parameter="name"
            )
        with begin(self.engine) as connection:
            seq = _collection(connection, name) or _made(connection, name)
            for id in ids:
                _row(connection, id)
                there = select(1).where(collected.c.collection_seq == seq, collected.c.picture_id == id)
                if connection.execute(there).first() is None:
                    connection.execute(insert(collected).values(collection_seq=seq, picture_id=id))

    def uncollect(self, name: str, *ids: str) -> None:
        """Take pictures out of a collection; they stay in the history."""
        with begin(self.engine) as connection:
            seq = _collection(connection, name)
            inside = (collected.c.collection_seq == seq) & collected.c.picture_id.in_(ids)
            connection.execute(delete(collected).where(inside))

    def collections_of(self, id: str) -> tuple[str, ...]:
        """The names of the collections that a picture is in, in order. NotFound."""
        wanted = select(collections.c.name).join(collected).where(collected.c.picture_id == id)
        with begin(self.engine, reading=True) as connection:
            _row(connection, id)
            return tuple(connection.execute(wanted.order_by(collections.c.name)).scalars())

    def collections(self) -> dict[str, int]:
        """How many pictures each has, by name."""
        size = func.count(collected.c.picture_id)
        wanted = select(collections.c.name, size).select_from(collections.outerjoin(collected))
        with begin(self.engine, reading=True) as connection:
            rows = connection.execute(wanted.group_by(collections.c.name).order_by(collections.c.name)).all()
        return {name: count for name, count in rows}


def _forked() -> None:
    """A thread that held the lock is not here any more."""
    global _opening
    _opening = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def insert_picture(
    connection: Connection, picture: Picture, sha256: str, job: str | None = None, index: int | None = None
) -> Row[Any]:
    """The new row of a picture whose file is stored already."""
    request = picture.request
    details = {
        "version": picture.version,
        "notes": list(picture.notes),
        "ignored": list(picture.ignored),
        "timings": dict(picture.timings),
    }
    values = {
        "id": new_id(),
        "made_at": now(),
        "sha256": sha256,
        "suffix": SUFFIX,
        "width": picture.image.width,
        "height": picture.image.height,
        "job_id": job,
        "job_index": index,
        "model": request.model or "",
        "model_digest": picture.model_digest,
        "request": request.to_json(),
        "details": json.dumps(details, allow_nan=False),
        **{name: getattr(request, name) for name in ("prompt", "negative_prompt", "seed", "num_steps")},
        **{name: getattr(request, name) for name in ("guidance_scale", "sampler")},
    }
    connection.execute(insert(pictures).values(**values))
    return _row(connection, values["id"])


def _encoded(picture: Picture) -> bytes:
    return picture.to_bytes(SUFFIX)


def new_id() -> str:
    """A name that cannot be guessed, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def now() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def _row(connection: Connection, id: str) -> Row[Any]:
    row = connection.execute(select(pictures).where(pictures.c.id == id)).first() if _is_id(id) else None
    if row is None:
        raise NotFound(f"there is no picture {shown(id)} in the history; search for it")
    return row


def _is_id(id: object) -> bool:
    return isinstance(id, str) and len(id) == 32 and "\0" not in id


def _collection(connection: Connection, name: str) -> int | None:
    return connection.execute(select(collections.c.seq).where(collections.c.name == name)).scalar()


def _made(connection: Connection, name: str) -> int:
    try:
        with connection.begin_nested():
            connection.execute(insert(collections).values(name=name, made_at=now()))
    except IntegrityError:  # somebody else made it just now
        pass
    seq = _collection(connection, name)
    assert seq is not None
    return seq
