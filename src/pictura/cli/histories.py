"""What the commands of `pictura history` share: which history, which picture, when, and how it is told."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pictura.errors import InputError, ParameterError, shown

if TYPE_CHECKING:
    from pictura.history import Entry, History

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="postgresql://USER@HOST/NAME or sqlite:///PATH; PICTURA_DATABASE does the same."
    ),
]
FolderOption = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the pictures are kept; PICTURA_HOME does the same.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, a line for each result.")]
IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="A picture, by the first digits of its id as search prints it.")
]
WordsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[WORD]...", help="Words of the prompt, all of which are there.")
]
CollectionOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only pictures of this collection.")
]
SHORT = 8  # digits of an id that people see
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@contextmanager
def opened(database: str | None, folder: Path | None) -> Iterator[History]:
    """The history that was asked for, otherwise the user's own."""
    from pictura.history import History

    with History(database or os.environ.get("PICTURA_DATABASE") or None, folder) as history:
        yield history


def entry_of(history: History, id: str) -> Entry:
    """The picture whose id begins so; InputError where that is none or several."""
    from pictura.history.database import begin
    from pictura.history.search import beginning

    given = id.strip().lower()
    if not re.fullmatch(r"[0-9a-f]{4,32}", given):
        raise InputError(f"{shown(id)} is no id; give 4 hexadecimal digits or more, as search prints them")
    with begin(history.engine, reading=True) as connection:
        found = beginning(connection, given)
    if len(found) > 1:
        raise InputError(f"several pictures have an id that begins with {given}; give more digits")
    return history.get(found[0] if found else given)


def moment(text: str | None, name: str) -> int | None:
    """Microseconds since 1970 of "2026-11-21", "2026-11-21T20:15", or "7d" for a week ago (m, h, d, w)."""
    if text is None:
        return None
    if ago := re.fullmatch(r"([0-9]{1,5})([mhdw])", text.strip()):
        then = datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    else:
        try:
            then = datetime.fromisoformat(text.strip()).astimezone(UTC)  # local where no zone is given
        except (ValueError, OverflowError):
            message = f"{name} is {shown(text)}; give a date such as 2026-11-21T20:15, or 7d for 7 days ago"
            raise ParameterError(message, parameter=name) from None
    return int(then.timestamp() * 1e6)


def facts(entry: Entry) -> dict[str, Any]:
    """All that is known of a picture, as JSON values."""
    made_at = datetime.fromtimestamp(entry.made_at / 1e6, UTC).isoformat().replace("+00:00", "Z")
    return {
        "id": entry.id,
        "file": str(entry.path),
        "made_at": made_at,
        "size": list(entry.size),
        "request": entry.request.to_dict(),
        "model_digest": entry.model_digest,
        "stars": entry.stars,
        "note": entry.note,
        "job": entry.job,
        "index": entry.index,
        **entry.details,
        "sha256": entry.sha256,
    }


def print_entries(entries: Iterable[Entry], as_json: bool) -> int:
    """A line for each picture: of a table on a terminal, else with tabs between; how many there were."""
    if as_json:
        number = 0
        for number, entry in enumerate(entries, 1):  # noqa: B007 (counted)
            print(json.dumps(facts(entry)), flush=True)
        return number
    head = ("id", "made", "model", "size", "seed", "stars", "prompt")
    return print_table(head, map(_row, entries))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Rows under a head on a terminal, else with tabs between and no head; how many there were."""
    number = 0
    if not sys.stdout.isatty():
        for number, row in enumerate(rows, 1):  # noqa: B007 (counted)
            print("\t".join(map(_plain, row)), flush=True)
        return number
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for number, row in enumerate(rows, 1):  # noqa: B007 (counted)
        table.add_row(*(Text(_plain(value)) for value in row))
    if number:
        Console().print(table)
    return number


def _plain(value: object) -> str:
    """On one line, and without what a terminal would obey."""
    text = " ".join(str(value).split())
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _row(entry: Entry) -> tuple[object, ...]:
    made = datetime.fromtimestamp(entry.made_at / 1e6).strftime("%Y-%m-%d %H:%M")
    request = entry.request
    size = "{}x{}".format(*entry.size)
    seed = "-" if request.seed is None else request.seed
    stars = "*" * entry.stars if entry.stars else "-"
    return entry.id[:SHORT], made, request.model or "-", size, seed, stars, request.prompt
