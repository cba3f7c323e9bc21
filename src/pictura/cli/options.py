"""Options that several commands share: which model, how it is loaded, what it is asked, what is told."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def number(text: str) -> Any:
    """An int or a float where `text` is one; otherwise the text, for `Request` to refuse in its own words."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def whole(help: str, *names: str) -> Any:
    """An option for a whole number; what is none is refused by whoever uses it, as in Python."""
    return typer.Option(*names, parser=number, metavar="INTEGER", help=help)


def decimal(help: str) -> Any:
    return typer.Option(parser=number, metavar="FLOAT", help=help)


def model_names(incomplete: str) -> list[str]:
    from pictura import presets

    return [name for name in presets.names() if name.startswith(incomplete)]


def sampler_names(incomplete: str) -> list[str]:
    from pictura import samplers

    return [name for name in samplers.names() if name.startswith(incomplete)]


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A preset's name, a folder, a file, hf://owner/name, or a remote one: openai://NAME.",
        autocompletion=model_names,
    ),
]
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
SeedOption = Annotated[int | None, whole("Seed of the first picture; 7 gives 7, 8, ...")]
StepsOption = Annotated[int | None, whole("Denoising steps.")]
GuidanceOption = Annotated[float | None, decimal("How hard to follow the prompt.")]
SamplerOption = Annotated[
    str | None, typer.Option(help="Sampler, such as heun or dpmpp_2m.", autocompletion=sampler_names)
]
NegativeOption = Annotated[str | None, typer.Option(help="What the pictures should not show.")]
SettingsOption = Annotated[
    list[str] | None, typer.Option(metavar="K=V", help="An option of the model, such as schedule=karras.")
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict/--no-strict", help="Refuse what the model cannot use, or ignore it and say so."),
]
ShowOption = Annotated[
    bool | None,
    typer.Option("--show/--no-show", help="Draw pictures on the terminal; by default where there is one."),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Allow --out to replace a file.")]
LineOption = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
HistoryOption = Annotated[
    bool,
    typer.Option(
        "--history/--no-history",
        help="Keep the pictures in the history too (see pictura history); PICTURA_HISTORY=off keeps none.",
    ),
]
