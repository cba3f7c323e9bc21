"""Pictures with columns of facts as Arrow tables that `datasets` understands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pictura.request import Request

__all__ = ["GROUP", "MADE", "SAID", "Row", "dataset_files", "facts", "features", "record_batches", "schema"]

MADE = {  # columns of every data set of pictures: how each was asked for and made
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
}
SAID = {"notes": "list", "ignored": "list"}  # what was said while it was made
GROUP = 100  # pictures of a record batch: what writing and reading hold in memory
Row = tuple[Mapping[str, Any], str, bytes]  # facts, file name, PNG


def facts(columns: Iterable[str], request: Request, size: tuple[int, int], **known: Any) -> dict[str, Any]:
    """`columns` of a picture of this (w, h): what is `known`, and fields of its request."""
    width, height = size
    options = json.dumps(request.to_dict().get("options", {}), sort_keys=True)
    known |= {"width": width, "height": height, "options": options}
    return {name: known[name] if name in known else getattr(request, name) for name in columns}


def features(columns: Mapping[str, str], scores: Sequence[str] = ()) -> dict[str, Any]:
    """The picture, `columns` (name -> int64, float64, string, or list for texts) and named scores."""
    kinds: dict[str, Any] = {
        name: {"feature": _value("string"), "_type": "List"} if kind == "list" else _value(kind)
        for name, kind in columns.items()
    }
    if scores:
        kinds["scores"] = {name: _value("float64") for name in scores}
    return {"image": {"_type": "Image"}, **kinds}


def schema(columns: Mapping[str, str], scores: Sequence[str] = ()) -> Any:
    """The same for Arrow, with a note that tells `datasets`."""
    import pyarrow as pa

    types = {
        "int64": pa.int64(),
        "float64": pa.float64(),
        "string": pa.string(),
        "list": pa.list_(pa.string()),
    }
    found = [("image", pa.struct({"bytes": pa.binary(), "path": pa.string()}))]
    found += [(name, types[kind]) for name, kind in columns.items()]
    if scores:
        found.append(("scores", pa.struct([(name, pa.float64()) for name in scores])))
    told = {"info": {"features": features(columns, scores)}}
    return pa.schema(found, metadata={"huggingface": json.dumps(told)})


def record_batches(rows: Iterable[Row], shape: Any) -> Iterator[Any]:
    """Rows as Arrow record batches of at most `GROUP`."""
    import pyarrow as pa

    rows = iter(rows)
    while group := list(islice(rows, GROUP)):
        values = [{"image": {"bytes": data, "path": name}, **facts} for facts, name, data in group]
        yield pa.RecordBatch.from_pylist(values, schema=shape)


def dataset_files(
    shards: Sequence[str], fingerprint: str, kinds: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    """(name, content) of what lies beside the Arrow files `shards` for `datasets.load_from_disk`."""
    state: dict[str, object] = {
        "_data_files": [{"filename": name} for name in shards],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    info = {"citation": "", "description": "", "homepage": "", "license": "", "features": kinds}
    yield "state.json", json.dumps(state, indent=2).encode()
    yield "dataset_info.json", json.dumps(info, indent=2).encode()


def _value(dtype: str) -> dict[str, str]:
    return {"dtype": dtype, "_type": "Value"}
