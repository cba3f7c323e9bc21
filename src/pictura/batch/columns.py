"""The columns of a data set of pictures: how each was asked for, made and judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pictura import arrow
from pictura.arrow import GROUP
from pictura.batch.plan import Item, Plan
from pictura.picture import Picture

__all__ = ["COLUMNS", "GROUP", "facts_of", "features", "record_batches", "schema"]

COLUMNS = {
    "row": "int64",
    "repetition": "int64",
    **arrow.MADE,
    "content_hash": "string",
    **arrow.SAID,
}


def facts_of(picture: Picture, item: Item, content: bytes) -> dict[str, Any]:
    """Every column of a picture but its scores."""
    values = {
        "row": item.row,
        "repetition": item.repetition,
        "model_digest": picture.model_digest,
        "version": picture.version,
        "content_hash": content.hex(),
        "notes": list(picture.notes),
        "ignored": list(picture.ignored),
    }
    return arrow.facts(COLUMNS, picture.request, picture.image.size, **values)


def features(plan: Plan) -> dict[str, Any]:
    """The columns and the picture as `datasets` describes them."""
    return arrow.features(COLUMNS, plan.scorers)


def schema(plan: Plan) -> Any:
    """The same for Arrow."""
    return arrow.schema(COLUMNS, plan.scorers)


def record_batches(rows: Iterable[arrow.Row], plan: Plan) -> Iterator[Any]:
    """(facts, file name, PNG) rows as Arrow record batches of at most `GROUP`."""
    return arrow.record_batches(rows, schema(plan))
