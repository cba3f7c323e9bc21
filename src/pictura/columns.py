"""Rows and batches of a data set, as requests.

A row is a mapping with "prompts" or "prompt"; columns that are named like a field of `Request` are used, all
others are the data set's own. Batches, as of a data loader, are taken apart. Nothing given is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from pictura.errors import ParameterError, shown
from pictura.request import Request

__all__ = ["SINGULAR", "decoded", "uneven", "unstacked"]

SINGULAR = {"prompts": "prompt", "negative_prompts": "negative_prompt"}
_COLUMNS = {field.name for field in fields(Request)} - {"model", "options"}


def unstacked(row: Mapping[Any, Any]) -> Iterator[Request]:
    """One row of a data set, or a batch of rows: then each column is a list (or one value for all)."""
    columns = {SINGULAR.get(name, name): _plain(value) for name, value in row.items()}
    used = {name: value for name, value in columns.items() if name in _COLUMNS and value is not None}
    if "prompt" not in used:
        message = f"there are no 'prompts' among {shown(sorted(map(str, row)))}; name the column of texts so"
        raise ParameterError(message, parameter="prompt")
    prompts = used["prompt"]
    if isinstance(prompts, (list, tuple)):
        for name, value in used.items():
            if _is_column(name, value) and len(value) != len(prompts):
                raise uneven(name)
        for at in range(len(prompts)):
            one = {name: value[at] if _is_column(name, value) else value for name, value in used.items()}
            yield _request(one)
    else:
        yield _request(used)


def _request(values: Mapping[str, Any]) -> Request:
    texts = {"prompt", "negative_prompt"}
    return Request(**{name: decoded(value) if name in texts else value for name, value in values.items()})


def _is_column(name: str, value: object) -> bool:
    """Whether `value` holds one entry a row: a size is (w, h) itself, a column of sizes is nested."""
    if not isinstance(value, (list, tuple)):
        return False
    return name != "size" or not value or not isinstance(value[0], int)


def _plain(value: Any) -> Any:
    """Tensors and arrays of a data loader as Python's own values."""
    return value.tolist() if hasattr(value, "tolist") else value


def decoded(value: Any) -> Any:
    """TensorFlow's data sets give bytes. What is no text at all is left for `Request` to refuse."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ParameterError(
                f"prompt is {shown(value)}, which is not UTF-8; give a text", parameter="prompt"
            ) from None
    return value


def uneven(name: str) -> ParameterError:
    return ParameterError(
        f"there are not as many {name} as prompts; give one for all or one for each", parameter=name
    )
