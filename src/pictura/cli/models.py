"""`pictura models`: which models there are, and what is known of one. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pictura.cli.options import ConfigOption, LineOption, VariantOption, model_names
from pictura.cli.service import described_service

app = typer.Typer(help="Models that have a name, and what is known of them.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Models that have a name, and what is known of them."""


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each model.")] = False,
) -> None:
    """List the models that can be used by name, and those that were downloaded, with their sizes."""
    from pictura.cli.described import size_of

    rows = _named() + _downloaded() + _remote()
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        size = "" if row["bytes"] is None else size_of(row["bytes"])
        print(f"{row['name']:{width}}  {size:>8}  {row['description'] or row['family']}".rstrip())


def _named() -> list[dict[str, Any]]:
    from pictura import presets
    from pictura.cli.described import weights_bytes

    return [
        {
            "name": name,
            "family": preset.family,
            "licence": preset.licence,
            "score": dict(preset.score or {}),
            "description": preset.description or preset.uri or "",
            "bytes": None
            if preset.uri and "://" in preset.uri
            else weights_bytes(presets.resolve(name).path),
        }
        for name, preset in sorted(presets.presets().items())
    ]


def _downloaded() -> list[dict[str, Any]]:
    from pictura.formats import cache

    return [
        {"name": one.handle, "family": "", "licence": "", "score": {}, "description": "downloaded",
         "bytes": one.size}
        for one in cache.cached()
    ]  # fmt: skip


def _remote() -> list[dict[str, Any]]:
    from pictura import providers

    return [
        {"name": f"{facts['name']}MODEL", "family": "remote", "licence": "", "score": {},
         "description": facts["description"], "bytes": None}
        for facts in map(described_service, providers.names())
    ]  # fmt: skip


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
    as_json: LineOption = False,
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


@app.command("remove")
def remove_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A downloaded model, hf://... or kaggle://...")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a downloaded model from the cache. Folders and files of your own are never touched."""
    from pictura.cli.described import size_of
    from pictura.formats import cache

    if not yes:
        typer.confirm(f"Delete every downloaded version of {model}?", abort=True, err=True)
    gone = cache.remove(model)
    print(f"{gone.handle}: {size_of(gone.size)} freed")


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
