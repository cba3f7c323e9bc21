"""Parameters beyond the common ones, as families and providers declare them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pictura.errors import ParameterError, shown

if TYPE_CHECKING:
    from pictura.attachments import Kind

__all__ = ["Option", "parsed_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A parameter beyond the common ones: command line, server and web page build their forms from it.

    default: recorded in every request, so that a later version replays it; None where there is nothing to
    record. Lists and mappings hold JSON values. attach: whether it is, or holds, pictures or files, which
    requests record by content (see `pictura.attachments`).
    """

    name: str
    type: type[bool] | type[int] | type[float] | type[str] | type[list[Any]] | type[dict[str, Any]]
    default: bool | int | float | str | None
    help: str
    choices: tuple[str, ...] = ()
    attach: Kind | None = None


def parsed_options(pairs: Sequence[str], reserved: Collection[str]) -> dict[str, Any]:
    """`k=v` pairs; a value is read as JSON where it is (1, 0.5, true, [1,2]) and is a text otherwise.

    Raises ParameterError for one of the `reserved` names, which are given in other ways.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ParameterError(f"option is {shown(pair)}; give NAME=VALUE", parameter="option")
        if name in reserved:
            raise ParameterError(f"option {name!r} has a place of its own; give it there", parameter=name)
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values
