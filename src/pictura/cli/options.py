"""Options that several commands share: how a model is loaded."""

from __future__ import annotations

from typing import Annotated

import typer

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
