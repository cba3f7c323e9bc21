"""Finding pictures: words in their prompts, what made them, what people thought of them; page by page.

Words are found by an index of the database's own kind, SQLite's FTS5 or PostgreSQL's text search, without
stemming: every word must be there, the last may be the beginning of one.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    column,
    exists,
    false,
    func,
    literal_column,
    select,
    table,
)

from pictura.errors import ParameterError, did_you_mean, shown
from pictura.history.tables import collected, collections, pictures

__all__ = ["MAX_LIMIT", "Query", "beginning", "found", "places"]

MAX_LIMIT = 500


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is looked for; what is None does not matter. Times are microseconds since 1970."""

    words: str = ""
    model: str | None = None
    sampler: str | None = None
    seed: int | None = None
    num_steps: int | None = None
    guidance_scale: float | None = None
    size: tuple[int, int] | None = None
    min_stars: int | None = None
    max_stars: int | None = None
    rated: bool | None = None
    since: int | None = None
    until: int | None = None
    collection: str | None = None
    job: str | None = None

    @classmethod
    def of(cls, **said: Any) -> Query:
        """ParameterError for a filter that there is not."""
        known = {field.name for field in fields(cls)}
        for name in said:
            if name not in known:
                raise ParameterError(
                    f"history has no filter {name!r}; {did_you_mean(name, known)}", parameter=name
                )
        return cls(**said)


def found(
    connection: Connection, query: Query, limit: int, cursor: str | None
) -> tuple[list[Row[Any]], str | None]:
    """The newest pictures that `query` fits, at most `limit`, and a cursor for those after them.

    Whatever is added meanwhile, walking along the cursors gives each picture once. ParameterError for a
    cursor that no search gave.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise ParameterError(
            f"limit is {shown(limit)}; give a whole number 1..{MAX_LIMIT}", parameter="limit"
        )
    wanted, seq = _wanted(query, connection.dialect.name)
    if cursor is not None:
        wanted = wanted.where(seq < _position(cursor))
    rows = connection.execute(wanted.order_by(seq.desc()).limit(limit + 1)).all()
    more = len(rows) > limit
    return list(rows[:limit]), _cursor(rows[limit - 1].seq) if more else None


def places(connection: Connection, query: Query, every: int) -> tuple[int, tuple[str, ...]]:
    """How many pictures `query` fits, and cursors of those number 0, `every`, 2 `every`, ..., newest first.

    A search from one of these cursors begins with that picture, whatever has been added meanwhile.
    """
    if isinstance(every, bool) or not isinstance(every, int) or not 1 <= every <= MAX_LIMIT:
        raise ParameterError(
            f"every is {shown(every)}; give a whole number 1..{MAX_LIMIT}", parameter="every"
        )
    wanted, seq = _wanted(query, connection.dialect.name)
    place = func.row_number().over(order_by=seq.desc()).label("place")
    total = func.count().over().label("total")
    numbered = wanted.with_only_columns(seq.label("seq"), place, total).subquery()
    first = (numbered.c.place - 1) % every == 0
    rows = connection.execute(select(numbered).where(first).order_by(numbered.c.place)).all()
    return (rows[0].total if rows else 0), tuple(_cursor(row.seq + 1) for row in rows)


def beginning(connection: Connection, digits: str) -> list[str]:
    """Ids of pictures that begin with these hexadecimal digits; two at most, as more than one is too many."""
    here = and_(pictures.c.id >= digits, pictures.c.id < digits + "g")
    return list(connection.execute(select(pictures.c.id).where(here).limit(2)).scalars())


def _wanted(query: Query, dialect: str) -> tuple[Select[Any], ColumnElement[int]]:
    """What is asked of the database, and the column by which it is in order."""
    words = re.findall(r"\w+", query.words)[:32]
    if query.words.strip() and not words:
        return select(pictures).where(false()), pictures.c.seq
    if not words:
        return select(pictures).where(*_conditions(query)), pictures.c.seq
    if dialect != "sqlite":
        match = " & ".join(f"'{word}'" for word in words) + ":*"
        known = literal_column("pictures.words").op("@@")(func.to_tsquery("simple", match))
        return select(pictures).where(*_conditions(query), known), pictures.c.seq
    # The word index gives its rows newest first, so the first ones that fit are the page. SQLite's planner
    # would rather begin with another index and sort; a plus before a column keeps it from that.
    # A word in quotes is a word whatever it looks like; the star lets the last one be a beginning.
    index = table("pictures_words", column("rowid"))
    match = " ".join(f'"{word}"' for word in words) + "*"
    wanted = select(pictures).select_from(index.join(pictures, index.c.rowid == pictures.c.seq))
    known = literal_column("pictures_words").op("MATCH")(match)
    return wanted.where(known, *_conditions(query, "+")), index.c.rowid


def _conditions(query: Query, sign: str = "") -> list[ColumnElement[bool]]:
    def c(name: str) -> ColumnElement[Any]:
        return literal_column(f"{sign}pictures.{name}", pictures.c[name].type) if sign else pictures.c[name]

    equal = ("model", "sampler", "seed", "num_steps", "guidance_scale")
    result = [c(name) == value for name in equal if (value := getattr(query, name)) is not None]
    if query.size is not None:
        result += [c("width") == query.size[0], c("height") == query.size[1]]
    if query.min_stars is not None:
        result.append(c("stars") >= query.min_stars)
    if query.max_stars is not None:
        result.append(c("stars") <= query.max_stars)
    if query.rated is not None:
        result.append(c("stars").is_not(None) if query.rated else c("stars").is_(None))
    if query.since is not None:
        result.append(c("made_at") >= query.since)
    if query.until is not None:
        result.append(c("made_at") < query.until)
    if query.job is not None:
        result.append(c("job_id") == query.job)
    if query.collection is not None:
        inside = and_(
            collected.c.picture_id == pictures.c.id,
            collected.c.collection_seq == collections.c.seq,
            collections.c.name == query.collection,
        )
        result.append(exists(select(1).select_from(collected.join(collections)).where(inside)))
    return result


def _cursor(seq: int) -> str:
    return base64.urlsafe_b64encode(str(seq).encode()).decode().rstrip("=")


def _position(cursor: str) -> int:
    try:
        decoded = base64.urlsafe_b64decode(cursor.encode() + b"==").decode("ascii")
        if not re.fullmatch(r"[0-9]{1,18}", decoded) or _cursor(int(decoded)) != cursor:
            raise ValueError(decoded)
    except ValueError:
        raise ParameterError(
            f"cursor is {shown(cursor)}; give the one of the page before", parameter="cursor"
        ) from None
    return int(decoded)
