"""`pictura serve`."""

from __future__ import annotations

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pictura.cli.show import say
from pictura.errors import ParameterError, did_you_mean, shown

if TYPE_CHECKING:
    from pictura.server.keys import Key

__all__ = ["app", "serve"]

app = typer.Typer(help="Serve pictures on HTTP, and make keys for those who may ask.")
keys = typer.Typer(help="API keys, kept in a file as hashes.", no_args_is_help=True)
app.add_typer(keys, name="keys")

File = Annotated[Path, typer.Option("--file", help="The file of keys, as --api-key-file takes it.")]


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
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
    adapters: Annotated[
        Path | None,
        typer.Option(help="A folder of ControlNets, T2I- and IP-Adapters that requests may name."),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A site whose pages may ask, such as https://studio.example."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER", help="Change a limit, such as queue=500; see docs/server.md."),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, max=86400, help="Seconds that unfinished pictures are given at the end.")
    ] = 10.0,
    log: Annotated[
        str, typer.Option(help="Log lines as text or json; auto is text on a terminal only.")
    ] = "auto",
) -> None:
    """Serve pictures on HTTP: a page, and what clients of OpenAI, Hugging Face and AUTOMATIC1111 speak."""
    if context.invoked_subcommand is not None:
        return
    from pictura.server.settings import DEFAULT_MODEL, Limits, Settings

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
        adapters=adapters,
        cors=tuple(cors or ()),
        grace=grace,
        log=log,
        limits=replace(Limits(), **dict(map(_limit, limit or ()))),
    )
    for key in settings.keys:
        if key.short:
            say("warning: an API key is short and may be guessed; `pictura serve keys add` makes better ones")
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


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is; their jobs are known by it.")],
    file: File,
    scopes: Annotated[
        str, typer.Option(help="What it allows: read, generate, rate, admin (load models).")
    ] = "read,generate,rate",
    requests: Annotated[int | None, typer.Option(min=1, help="The most requests in a minute.")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="The most pictures in a minute.")] = None,
) -> None:
    """Make a key. It is printed once and kept nowhere; the file gets its hash. Restart the server then."""
    from pictura.server.keys import added

    secret = added(file, name, scopes.split(","), requests=requests, pictures=pictures)
    say(f"the key of {name}, which is shown this once:")
    print(secret)


@keys.command("list")
def list_(file: File) -> None:
    """The names of all keys and what they allow."""
    from pictura.server.keys import SCOPES, read_keys

    for key in read_keys(file):
        limits = [f"requests={key.requests}"] * (key.requests is not None)
        limits += [f"pictures={key.pictures}"] * (key.pictures is not None)
        print(key.name, ",".join(name for name in SCOPES if name in key.scopes), *limits, sep="  ")


@keys.command()
def remove(name: Annotated[str, typer.Argument(help="Whose key.")], file: File) -> None:
    """Take a key away. Restart the server then."""
    from pictura.server.keys import removed

    removed(file, name)
    say(f"the key of {name} is gone; restart the server")


def _limit(given: str) -> tuple[str, int]:
    """("queue", 500) for "queue=500"."""
    from pictura.server.settings import Limits

    name, _, value = given.partition("=")
    known = [field.name for field in fields(Limits)]
    if name not in known:
        raise ParameterError(
            f"limit {shown(name)} is unknown; {did_you_mean(name, known)}", parameter="limit"
        )
    if not re.fullmatch(r"[1-9][0-9]{0,15}", value):
        raise ParameterError(f"limit {name} is {shown(value)}; give a whole number", parameter="limit")
    return name, int(value)


def _keys(file: Path | None) -> tuple[Key, ...]:
    from pictura.server.keys import key_of, read_keys

    secret = os.environ.get("PICTURA_API_KEY", "").strip()
    found = () if file is None else read_keys(file)
    return (key_of(secret, name="PICTURA_API_KEY"), *found) if secret else found
