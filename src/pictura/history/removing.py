"""Taking pictures out of the history for good."""

from __future__ import annotations

from sqlalchemy import Connection, delete, or_, select, text

from pictura.errors import NotFound, shown
from pictura.history.database import begin
from pictura.history.store import History
from pictura.history.tables import choices, collected, pictures, ratings

__all__ = ["remove"]


def remove(history: History, *ids: str) -> None:
    """Forget pictures, what people thought of them and what they were found by: all of `ids` or none.

    Their files stay until `checking.check(history, clean=True)` comes by, since another process may be about
    to keep the same picture again. NotFound where there is no such picture.
    """
    with begin(history.engine) as connection:
        for id in ids:
            _remove(connection, id)


def _remove(connection: Connection, id: str) -> None:
    row = connection.execute(select(pictures).where(pictures.c.id == id)).first()
    if row is None:
        raise NotFound(f"there is no picture {shown(id)} in the history; search for it")
    connection.execute(delete(ratings).where(ratings.c.picture_id == id))
    connection.execute(delete(collected).where(collected.c.picture_id == id))
    connection.execute(delete(choices).where(or_(choices.c.winner_id == id, choices.c.loser_id == id)))
    if connection.dialect.name == "sqlite":  # FTS5 has the words of a row and wants to hear them again
        told = text(
            "INSERT INTO pictures_words(pictures_words, rowid, prompt, negative_prompt) "
            "VALUES ('delete', :seq, :prompt, :negative)"
        )
        values = {"seq": row.seq, "prompt": row.prompt, "negative": row.negative_prompt}
        connection.execute(told, values)
    connection.execute(delete(pictures).where(pictures.c.id == id))
