"""A row of a prompt file, as a request or as the reason why it cannot be one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

from pictura.errors import InputError, ParameterError, shown
from pictura.request import Request

__all__ = ["Row", "Source", "digest_of", "prompt_column", "row_of"]

PROMPTS = ("prompt", "prompts", "text", "caption")  # columns that hold the prompt, the first one there is
COLUMNS = frozenset(field.name for field in fields(Request)) - {"prompt", "model"}
_WHOLE, _NUMBER, _JSON = {"seed", "num_steps"}, {"guidance_scale"}, {"options"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Row `number` (from 0) of a source. place: "prompts.csv:17", for people.

    It has a request or a problem, one sentence.
    """

    number: int
    place: str
    request: Request | None = None
    problem: str | None = None


class Source(Protocol):
    """Where prompts come from. Reading it twice gives the same rows.

    name: for people. digest: SHA-256 of all that decides the rows.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def count(self) -> int:
        """How many rows there are, unreadable ones among them. InputError where not one can be read."""
        ...

    def rows(self, start: int = 0) -> Iterator[Row]:
        """The rows from number `start` on, each read when it is asked for."""
        ...


def prompt_column(columns: object, wanted: str | None, name: str) -> str:
    """The column that holds the prompts: `wanted`, or the first of `PROMPTS` that is there; InputError."""
    known = [str(column) for column in columns] if isinstance(columns, (list, tuple)) else []
    if wanted is not None:
        if wanted not in known:
            raise InputError(f"{name} has no column {shown(wanted)}; it has {_listed(known)}")
        return wanted
    for column in PROMPTS:
        if column in known:
            return column
    raise InputError(f"{name} has no column of prompts among {_listed(known)}; name it with --column")


def digest_of(rows: Iterable[Row]) -> str:
    """A digest of what rows say, wherever they come from."""
    total = hashlib.sha256()
    for row in rows:
        told = row.problem if row.request is None else row.request.to_json()
        total.update(f"{told}\n".encode())
    return total.hexdigest()


def row_of(number: int, place: str, values: object, column: str | None, *, text: bool = False) -> Row:
    """The row that holds `values`: a prompt alone, or a mapping of columns.

    Columns named like a field of `Request` are parameters, all others are the source's own. text: values
    are texts, as in CSV, where an empty one means that nothing is said.
    """
    try:
        return Row(number=number, place=place, request=_request(values, column, text))
    except ParameterError as error:
        return Row(number=number, place=place, problem=str(error))


def _request(values: object, column: str | None, text: bool) -> Request:
    if isinstance(values, Request):
        return values
    if isinstance(values, str):
        return Request(prompt=values)
    if not isinstance(values, Mapping):
        raise ParameterError(f"the row is {shown(values)}; give a text or named values", parameter="prompt")
    column = column or next((name for name in PROMPTS if name in values), "prompt")
    if column not in values:
        there = _listed([str(name) for name in values])
        raise ParameterError(f"there is no {shown(column)} among {there}; add it", parameter="prompt")
    prompt = values[column]
    if prompt is None or (text and prompt == ""):
        raise ParameterError(f"{column} is null; give a text", parameter="prompt")
    given = {name: values[name] for name in COLUMNS if name != column and values.get(name) is not None}
    if text:
        given = {name: _parsed(name, value) for name, value in given.items() if value != ""}
    if isinstance(given.get("options"), str):
        given["options"] = _parsed("options", given["options"])
    if isinstance(given.get("options"), Mapping):
        given["options"] = {name: value for name, value in given["options"].items() if value is not None}
    return Request(prompt=prompt, **given)


def _parsed(name: str, value: Any) -> Any:
    """A cell of text as the kind of value that its column holds; left alone for Request to refuse."""
    try:
        if name in _WHOLE:
            return int(value)
        if name in _NUMBER:
            return float(value)
        if name in _JSON:
            return json.loads(value)
    except (ValueError, RecursionError):
        pass
    return value


def _listed(names: list[str]) -> str:
    return shown(", ".join(names), 200) if names else "none at all"
