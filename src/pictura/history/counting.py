"""How much there is in a history."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from pictura.history.database import begin
from pictura.history.store import History
from pictura.history.tables import choices, collections, pictures

__all__ = ["stats"]


def stats(history: History) -> dict[str, Any]:
    """Counts of the pictures and of what people thought of them, and where they are; JSON values.

    first, last: when the oldest and the newest picture were made, microseconds since 1970; None of none.
    bytes: of the pictures' files, each counted once. models: how many pictures each has, most first.
    """
    number = func.count()
    by_model = select(pictures.c.model, number).group_by(pictures.c.model)
    with begin(history.engine, reading=True) as connection:
        total, rated, first, last = connection.execute(
            select(
                number,
                func.count(pictures.c.stars),
                func.min(pictures.c.made_at),
                func.max(pictures.c.made_at),
            ).select_from(pictures)
        ).one()
        models = connection.execute(by_model.order_by(number.desc(), pictures.c.model)).all()
        compared = connection.execute(select(number).select_from(choices)).scalar_one()
        gathered = connection.execute(select(number).select_from(collections)).scalar_one()
    files = [path.stat().st_size for path in history.blobs.folder.glob("??/*") if path.name[0] != "."]
    return {
        "pictures": total,
        "files": len(files),
        "bytes": sum(files),
        "rated": rated,
        "choices": compared,
        "collections": gathered,
        "first": first,
        "last": last,
        "models": {model: count for model, count in models},
        "folder": str(history.folder),
        "database": history.engine.url.render_as_string(hide_password=True),
    }
