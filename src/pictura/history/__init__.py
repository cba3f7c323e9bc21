"""The history: every picture with all that made it, in a database and a folder of files; jobs that survive.

    from pictura.history import History

    with History() as history:                      # SQLite under the user's data folder
        entry = history.add(picture)
        history.search("cat", model="scenes", min_stars=3).entries
        history.rate(entry.id, stars=5)

`tables` says what is stored, `blobs` keeps files by content, `store` pictures and what people think of them,
`search` finds them, `jobs` is the queue of a server. SQLite and PostgreSQL; migrations by Alembic.
"""

from __future__ import annotations

from pictura.history.store import Entry, History, Page

__all__ = ["Entry", "History", "Page"]
