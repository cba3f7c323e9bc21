"""`pictura history`: every picture that was made here, found, explained, rated, made again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pictura.cli import keeping
from pictura.cli.histories import (
    CollectionOption,
    DatabaseOption,
    FolderOption,
    IdArgument,
    JsonOption,
    WordsArgument,
    entry_of,
    facts,
    moment,
    opened,
    print_entries,
    print_table,
)
from pictura.cli.options import DtypeOption, ShowOption, model_names, number, whole
from pictura.cli.output import saver
from pictura.cli.service import KeyOption, settings_again
from pictura.cli.show import protocol, say, show
from pictura.errors import InputError, ParameterError, shown

if TYPE_CHECKING:
    from pictura.history import Entry
    from pictura.picture import Picture

app = typer.Typer(help="Every picture that was made here: find, explain, rate it, make it again.",
                  no_args_is_help=True)  # fmt: skip

StarsOption = Annotated[
    int | None, typer.Option(parser=number, metavar="0..5", help="How good it is; 0 withdraws its stars.")
]


@app.callback()
def options() -> None:
    """Every picture that was made here: find, explain, rate it, make it again."""


@app.command()
def search(
    words: WordsArgument = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Only of this model.", autocompletion=model_names)
    ] = None,
    min_stars: Annotated[
        int | None, typer.Option(parser=number, metavar="1..5", help="Rated so or better.")
    ] = None,
    seed: Annotated[int | None, whole("Of this seed.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Made since 2026-11-21, 2026-11-21T20:15, or 7d ago.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Made before.")] = None,
    collection: CollectionOption = None,
    limit: Annotated[int, whole("So many at most; 0 for all of them.")] = 20,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> None:
    """Find pictures, the newest first."""
    filters: dict[str, Any] = {
        "model": model, "min_stars": min_stars, "seed": seed, "since": moment(since, "since"),
        "until": moment(until, "until"), "collection": collection,
    }  # fmt: skip
    for name in ("min_stars", "seed"):
        if not isinstance(filters[name], int | None):
            raise ParameterError(f"{name} is {shown(filters[name])}; give a whole number", parameter=name)
    if not isinstance(limit, int) or limit < 0:
        raise ParameterError(f"limit is {shown(limit)}; give a whole number, 0 for all", parameter="limit")
    with opened(database, folder) as history:
        found = history.walk(" ".join(words or ()), **filters)
        print_entries(islice(found, limit) if limit else found, as_json)
        if limit and next(found, None) is not None:
            say(f"these are the newest {limit}; --limit 0 shows all")


@app.command("show")
def show_picture(
    id: IdArgument,
    as_json: JsonOption = False,
    show_pictures: ShowOption = None,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> None:
    """Print everything that made a picture, and the command and the Python that make it again."""
    from pictura.history import again

    how = protocol(sys.stderr, wanted=show_pictures)
    with opened(database, folder) as history:
        entry = entry_of(history, id)
        names = list(history.collections_of(entry.id))
    strict = not entry.details.get("ignored")
    ways = {"command": again.command(entry.request, strict=strict),
            "python": again.python(entry.request, strict=strict)}  # fmt: skip
    if as_json:
        print(json.dumps(facts(entry) | {"collections": names} | ways))
        return
    if how != "none":
        show(entry.picture().image, how)
    for name, value in _lines(entry):
        print(f"{name}: {value}")
    if names:
        print(f"collections: {_text(names)}")
    print(f"command: {ways['command']}\npython:")
    print("".join(f"    {line}\n" if line else "\n" for line in ways["python"].splitlines()), end="")


@app.command()
def rate(
    id: IdArgument,
    stars: StarsOption = None,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="What is to be said of it.")] = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> None:
    """Give a picture stars or a note, or withdraw its stars; what is left out stays as it was."""
    if stars is None and note is None:
        raise InputError("there is nothing to rate with; give --stars 1..5, --stars 0 or --note TEXT")
    with opened(database, folder) as history:
        print_entries([history.rate(entry_of(history, id).id, stars=stars, note=note)], as_json)


@app.command()
def choose(
    winner: Annotated[str, typer.Argument(metavar="WINNER", help="The id of the better one.")],
    loser: Annotated[str, typer.Argument(metavar="LOSER", help="The id of the other.")],
    as_json: JsonOption = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> None:
    """Say which of two pictures is better, as the page's blind comparison does."""
    with opened(database, folder) as history:
        better, worse = entry_of(history, winner), entry_of(history, loser)
        history.choose(better.id, worse.id)
    if as_json:
        print(json.dumps({"winner": better.id, "loser": worse.id}))


@app.command()
def collections(
    as_json: JsonOption = False, database: DatabaseOption = None, folder: FolderOption = None
) -> None:
    """List the collections and how many pictures each has."""
    with opened(database, folder) as history:
        found = history.collections()
    if as_json:
        for name, count in found.items():
            print(json.dumps({"name": name, "count": count}))
    else:
        print_table(("collection", "pictures"), found.items())


@app.command()
def collect(
    name: Annotated[str, typer.Argument(metavar="COLLECTION", help="Made where there is none.")],
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Pictures to put in.")] = None,
    out: Annotated[bool, typer.Option("--out", help="Take them out instead.")] = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> None:
    """Put pictures into a collection, or take them out."""
    with opened(database, folder) as history:
        found = [entry_of(history, id).id for id in ids or ()]
        if out:
            history.uncollect(name, *found)
        else:
            history.collect(name, *found)


@app.command()
def replay(
    id: IdArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Store the new picture too, as generate does.")
    ] = None,
    dtype: DtypeOption = None,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
    api_key_env: KeyOption = None,
) -> int:
    """Make a picture again and compare every pixel; exit with 1 if any differs.

    Where a server's address made it, no key is sent there unless --api-key-env names it.
    """
    from pictura.history.replaying import replay as made_again

    with opened(database, folder) as history:
        entry = entry_of(history, id)
    if not entry.request.model:
        raise InputError(
            f"the picture {entry.id} does not say which model made it, so nobody can make it again"
        )
    save = None if out is None else saver(out, several=False)
    then = entry.picture().amended(request=entry.request)  # whose file may not say where others lie

    from pictura.cli.replay import tell_replay
    from pictura.task import TextToImage

    preset = entry.request.model
    again = settings_again(preset, api_key_env)
    model = TextToImage.from_preset(preset, dtype=dtype, history=False, **again)

    def draw(then: Picture) -> Picture:
        made: Picture = model.generate(then.request, strict=not then.ignored)
        return made

    found = made_again(then, draw)
    status = tell_replay(entry.id, found, as_json)
    if save is not None:
        say(f"the new picture is {save(found.picture)}")
    return status


@app.command()
def remove(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Pictures to forget.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> None:
    """Forget pictures for good, with their ratings; `check --clean` frees their space an hour later."""
    from pictura.history.removing import remove as forget

    with opened(database, folder) as history:
        found = [entry_of(history, id) for id in ids]
        if not yes:
            if not sys.stdin.isatty():
                raise InputError(f"{len(found)} pictures would be forgotten for good; say --yes")
            for entry in found:
                say(f"{entry.id}  {entry.request.prompt}")
            typer.confirm("Forget them for good?", abort=True, err=True)
        forget(history, *(entry.id for entry in found))
    say(f"{len(found)} forgotten")


@app.command()
def stats(as_json: JsonOption = False, database: DatabaseOption = None, folder: FolderOption = None) -> None:
    """Print how many pictures there are, of which models, and where they are."""
    from pictura.cli.described import size_of
    from pictura.history.counting import stats as counted

    with opened(database, folder) as history:
        found = counted(history)
    if as_json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        if name == "models":
            for model, count in value.items():
                print(f"  {model or '-'}: {count}")
        elif value is not None:
            told = (
                datetime.fromtimestamp(value / 1e6).isoformat(" ", "seconds")
                if name in ("first", "last")
                else value
            )
            print(f"{name}: {size_of(value) if name == 'bytes' else told}")


app.command()(keeping.export)
app.command()(keeping.backup)
app.command()(keeping.restore)
app.command()(keeping.check)


def _lines(entry: Entry) -> Iterator[tuple[str, str]]:
    """The facts that there are; a request's fields and timings stand for themselves."""
    for name, value in facts(entry).items():
        if name in ("request", "timings"):
            unit = "seconds " if name == "timings" else ""
            yield from ((f"{unit}{key}", _text(inner)) for key, inner in value.items() if key != "size")
        elif value not in (None, [], {}):
            yield name, _text("{}x{}".format(*value) if name == "size" else value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)
