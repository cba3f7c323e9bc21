"""Options that several commands share: how a model is loaded, and its own options as K=V."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Annotated, Any

import typer

from pictura.errors import ParameterError, shown

ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="MODEL", help="A folder or model that holds what the model lacks."),
]
VariantOption = Annotated[
    str | None, typer.Option("--variant", help='Which of several spellings of the weights, such as "fp16".')
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="float32, in which a seed has the same picture everywhere, bfloat16, float16, int8 or auto; "
        "without it what PICTURA_DTYPE says, else float32 for small models and auto for large ones.",
    ),
]
LowMemoryOption = Annotated[
    bool | None,
    typer.Option(
        "--low-memory/--no-low-memory",
        help="Read the blocks of large networks from the file each time; by itself where they do not fit.",
    ),
]


HistoryOption = Annotated[
    bool,
    typer.Option(
        "--history/--no-history",
        help="Keep the pictures in the history too (see pictura history); PICTURA_HISTORY=off keeps none.",
    ),
]


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
            raise ParameterError(f"option {name!r} has a place of its own; see --help", parameter=name)
        try:
            values[name] = json.loads(text)
        except ValueError:
            values[name] = text
    return values
