"""`pictura serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pictura.errors import FileError, ParameterError, shown

__all__ = ["serve"]


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on; others than loopback need a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 7860,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="[NAME=]MODEL",
            help="A model to offer beside the named ones; the first is the default. Repeatable.",
        ),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The database of the history, SQLite in --folder by default; or PICTURA_DATABASE.",
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where the pictures are kept; PICTURA_HOME has the same effect.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the API keys, one a line; or set PICTURA_API_KEY.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=1000, help="Workers for each model: as many as there are devices.")
    ] = 1,
    engine: Annotated[str, typer.Option(help="Where workers run: local, or ray.")] = "local",
    address: Annotated[str | None, typer.Option(help="The address of a Ray cluster.")] = None,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="Gigabytes that all models may take together.")
    ] = None,
    loras: Annotated[Path | None, typer.Option(help="A folder of LoRA files that requests may name.")] = None,
) -> None:
    """Serve pictures on HTTP: a page, and what clients of OpenAI, Hugging Face and AUTOMATIC1111 speak."""
    from pictura.server.settings import DEFAULT_MODEL, Settings

    settings = Settings(
        host=host,
        port=port,
        models=dict(map(_named, model or [DEFAULT_MODEL])),
        url=database or os.environ.get("PICTURA_DATABASE") or None,
        folder=folder,
        keys=_keys(api_key_file),
        workers=workers,
        engine=engine,
        address=address,
        memory=None if memory is None else int(memory * 1e9),
        loras=loras,
    )
    try:
        from pictura.server.app import serve as run
    except ModuleNotFoundError as error:
        raise ParameterError(
            f"{error.name} is not installed, and a server needs it; pip install 'pictura[server,local]'",
            parameter="serve",
        ) from None
    run(settings)


def _named(given: str) -> tuple[str, str]:
    """("cat", "/path") for "cat=/path"; a model without a name is called as it was given."""
    name, equals, place = given.partition("=")
    if equals and "/" not in name and "://" not in name:
        return name, place
    return given, given


def _keys(file: Path | None) -> tuple[str, ...]:
    found = [os.environ.get("PICTURA_API_KEY", "")]
    if file is not None:
        try:
            found += file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"the file of API keys {shown(str(file))} cannot be read: {error}") from error
    keys = tuple(key.strip() for key in found if key.strip() and not key.startswith("#"))
    if file is not None and not keys:
        raise FileError(f"the file of API keys {shown(str(file))} has none; write one a line")
    return keys
