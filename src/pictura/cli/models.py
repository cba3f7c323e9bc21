"""`pictura models`: which models there are, and what is known of one. Needs no torch."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pictura.cli.generate import model_names
from pictura.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(help="Models that have a name, and what is known of them.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Models that have a name, and what is known of them."""


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each model.")] = False,
) -> None:
    """List the models that can be used by name."""
    from pictura import presets

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
            metavar="MODEL", help="A name, hf://owner/name or a folder.", autocompletion=model_names
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Print what is known of a model: family, size, defaults, options, where it comes from."""
    facts = described(model)
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
        elif value not in (None, "", {}):
            print(f"{name}: {value}")


def described(model: str) -> dict[str, Any]:
    """All that is known of a model without building it, as JSON values.

    "verified" says whether the weights have the digest that the preset promises; None where it promises none.
    """
    from pictura import presets
    from pictura.formats import preset as folders
    from pictura.formats import safetensors

    source = presets.resolve(model)
    preset = presets.presets().get(model)
    config = folders.read(source.folder, root=source.root)
    try:
        entries = safetensors.weights(source.folder, root=source.root)
    except FileError:  # a folder without weights is a model too, with random ones
        entries = {}
    files = sorted({entry.file for entry in entries.values()})
    digest = safetensors.digest(files) if files else None
    promised = preset.sha256 if preset else None
    return {
        "name": source.name,
        "description": preset.description if preset else "",
        "family": config.family,
        "folder": str(source.folder),
        "commit": source.commit,
        "licence": preset.licence if preset else "",
        "parameters": sum(math.prod(entry.shape) for entry in entries.values()),
        "bytes": sum(file.stat().st_size for file in files),
        "digest": digest,
        "verified": None if promised is None else digest == promised,
        "score": dict(preset.score or {}) if preset else {},
        "defaults": dict(config.defaults),
        "options": _options(config.family),
        "provenance": dict(config.provenance),
        "architecture": dict(config.architecture),
    }


def _options(family: str) -> Mapping[str, str]:
    """The family's own options and what they are for; without torch no family can be asked, so none."""
    from importlib.util import find_spec

    from pictura import families

    if find_spec("torch") is None:
        return {}
    return {name: option.help for name, option in families.load(family).options.items()}
