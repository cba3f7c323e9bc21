"""From the base64 text of a pipeline's rows to pictures."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from pictura.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["to_pictures"]


def to_pictures(rows: Dataset, column: str = "image") -> Dataset:
    """`rows` with pictures in `column` instead of base64 text: a column of `datasets.Image`.

    Files are taken as they are, so each still tells how it was made; rows without a picture stay without.
    distilabel's `transform_columns_to_image` writes every picture anew, and stops at a row without one.
    Lists of pictures, as `group_generations` makes them, become lists of pictures. InputError where there is
    no such column.
    """
    from datasets import Image, List

    if column not in rows.column_names:
        raise InputError(f"there is no column {column!r}; give one of {', '.join(rows.column_names)}")
    grouped = isinstance(rows.features[column], List)
    features = rows.features.copy()
    features[column] = List(Image()) if grouped else Image()

    def decoded(row: dict[str, Any]) -> dict[str, Any]:
        given = row[column]
        return {column: [_file(each) for each in given or ()] if grouped else _file(given)}

    return rows.map(decoded, features=features)


def _file(image: str | None) -> dict[str, Any] | None:
    return None if image is None else {"bytes": base64.b64decode(image), "path": None}
