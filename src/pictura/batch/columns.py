"""The columns of a data set of pictures: how each was asked for, made and judged."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pictura.batch.plan import Item, Plan
from pictura.picture import Picture

__all__ = ["COLUMNS", "GROUP", "facts_of", "features", "record_batches", "schema"]

GROUP = 100  # pictures of a record batch: what writing and reading hold in memory
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
    kinds: dict[str, Any] = {
        name: {"feature": _value("string"), "_type": "List"} if kind == "list" else _value(kind)
        for name, kind in COLUMNS.items()
    }
    if plan.scorers:
        kinds["scores"] = {name: _value("float64") for name in plan.scorers}
    return {"image": {"_type": "Image"}, **kinds}


def schema(plan: Plan) -> Any:
    """The same for Arrow, with a note that tells `datasets`."""
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "string": pa.string(),
        "list": pa.list_(pa.string()),
    }
    columns = [("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}))]
    columns += [(name, types[kind]) for name, kind in COLUMNS.items()]
    if plan.scorers:
        columns.append(("scores", pa.struct([(name, pa.float64()) for name in plan.scorers])))
    return pa.schema(columns, metadata={"huggingface": json.dumps({"info": {"features": features(plan)}})})


def record_batches(rows: Iterable[tuple[Mapping[str, Any], str, bytes]], plan: Plan) -> Iterator[Any]:
    """(facts, file name, PNG) rows as Arrow record batches of at most `GROUP`."""
    import pyarrow as pa

    rows, shape = iter(rows), schema(plan)
    while group := list(islice(rows, GROUP)):
        values = [{"image": {"bytes": data, "path": name}, **facts} for facts, name, data in group]
        yield pa.RecordBatch.from_pylist(values, schema=shape)


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}
