"""Options that say how a model is loaded, shared by the commands that load one."""

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
        help="float32, in which a seed has the same picture everywhere, bfloat16, float16 or auto; without "
        "it what PICTURA_DTYPE says, or float32.",
    ),
]
