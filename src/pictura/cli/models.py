"""`pictura models`: which models there are, and what is known of one. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pictura.cli.generate import model_names
from pictura.cli.options import ConfigOption, VariantOption
from pictura.cli.service import described_service

app = typer.Typer(help="Models that have a name, and what is known of them.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Models that have a name, and what is known of them."""


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each model.")] = False,
) -> None:
    """List the models that can be used by name."""
    from pictura import presets, providers

    rows = [
        {
            "name": name,
            "family": preset.family,
            "licence": preset.licence,
            "score": dict(preset.score or {}),
            "description": preset.description,
        }
        for name, preset in sorted(presets.presets().items())
    ]
    rows += [
        {"name": f"{facts['name']}MODEL", "family": "remote", "licence": "", "score": {},
         "description": facts["description"]}
        for facts in map(described_service, providers.names())
    ]  # fmt: skip
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        print(f"{row['name']:{width}}  {row['description'] or row['family']}")


@app.command("show")
def show_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A name, a folder, a file, hf://..., kaggle://... or a service: openai://.",
            autocompletion=model_names,
        ),
    ],
    config: ConfigOption = None,
    variant: VariantOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Print what is known of a model: family, version, size, what is missing, where it comes from."""
    from pictura.cli.described import described

    facts = described(model, config=config, variant=variant)
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            print(f"{name}:")
            for key, inner in value.items():
                print(
                    f"  {key}: {inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)}"
                )
        elif value not in (None, "", {}, []):
            print(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


@app.command("pull")
def pull_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="hf://owner/name or kaggle://...")],
    variant: VariantOption = None,
) -> None:
    """Download a model, or what is new of it, and print where it lies. Only what it needs is fetched."""
    from pictura import presets

    source = presets.resolve(model, variant=variant)
    print(f"{source.name}\n{source.path}")


@app.command("convert")
def convert_model(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A model in any form that Pictura reads.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder or file to write.")],
    to: Annotated[str, typer.Option("--to", help="pictura, diffusers or single-file.")] = "pictura",
    config: ConfigOption = None,
    variant: VariantOption = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, float16 or bfloat16; as it is.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")] = False,
) -> None:
    """Write a model in another form. Every tensor keeps its bits, unless --dtype asks for others."""
    from pictura.converting import convert

    written = convert(source, target, to, config=config, variant=variant, dtype=dtype, overwrite=overwrite)
    print(written)
