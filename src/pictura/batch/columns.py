"""The columns of a data set of pictures: how each was asked for, made and judged."""

from __future__ import annotations

import json
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
    "prompt": "string",
    "negative_prompt": "string",
    "seed": "int64",
    "width": "int64",
    "height": "int64",
    "num_steps": "int64",
    "guidance_scale": "float64",
    "sampler": "string",
    "schedule": "string",
    "options": "string",  # JSON: models differ in what they take
    "model": "string",
    "model_digest": "string",
    "version": "string",
    "content_hash": "string",
    "notes": "list",
    "ignored": "list",
}


def facts_of(picture: Picture, item: Item, content: bytes) -> dict[str, Any]:
    """Every column of a picture but its scores."""
    request = picture.request
    width, height = picture.image.size
    values = {
        "row": item.row,
        "repetition": item.repetition,
        "width": width,
        "height": height,
        "options": json.dumps(request.to_dict().get("options", {}), sort_keys=True),
        "model_digest": picture.model_digest,
        "version": picture.version,
        "content_hash": content.hex(),
        "notes": list(picture.notes),
        "ignored": list(picture.ignored),
    }
    return {name: values[name] if name in values else getattr(request, name) for name in COLUMNS}


def features(plan: Plan) -> dict[str, Any]:
    """The columns and the picture as `datasets` describes them."""
    return arrow.features(COLUMNS, plan.scorers)


def schema(plan: Plan) -> Any:
    """The same for Arrow."""
    return arrow.schema(COLUMNS, plan.scorers)


def record_batches(rows: Iterable[arrow.Row], plan: Plan) -> Iterator[Any]:
    """(facts, file name, PNG) rows as Arrow record batches of at most `GROUP`."""
    return arrow.record_batches(rows, schema(plan))
