"""The history: every picture with all that made it, in a database and a folder of files; jobs that survive.

    from pictura.history import History

    with History() as history:                      # SQLite under the user's data folder
        entry = history.add(picture)
        history.search("cat", model="scenes", min_stars=3).entries
        history.rate(entry.id, stars=5)

`tables` says what is stored, `blobs` keeps files by content, `store` pictures and what people think of them,
`search` finds them, `jobs` is the queue of a server, `exporting` makes data sets, `replaying` compares a
picture with the same made again. SQLite and PostgreSQL; migrations by Alembic. The database is loaded when it
is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pictura.history.entries import Entry, Page
from pictura.lazy import lazy

if TYPE_CHECKING:
    from pictura.history.store import History

__all__ = ["OFF", "Entry", "History", "Page"]

OFF = frozenset({"off", "no", "0", "false"})  # what PICTURA_HISTORY says where nothing is to be kept

__getattr__, __dir__ = lazy(__name__, {"History": ".store"})
