"""`pictura history export`, `backup`, `restore` and `check`: the history as files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pictura.cli.histories import (
    CollectionOption,
    DatabaseOption,
    FolderOption,
    JsonOption,
    WordsArgument,
    opened,
)
from pictura.cli.show import say
from pictura.errors import InputError

if TYPE_CHECKING:
    from pictura.history.backup import Copied


def export(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder, or a .zip, that does not exist yet.")],
    words: WordsArgument = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="folder (imagefolder with metadata.jsonl), datasets (for load_from_disk) or zip; "
            "by default a zip where OUT ends so."
        ),
    ] = None,
    collection: CollectionOption = None,
    min_stars: Annotated[
        int | None, typer.Option(metavar="1..5", help="Only pictures rated so or better.")
    ] = None,
    preferences: Annotated[
        bool, typer.Option("--preferences", help="Pairs of which one was liked better, to tune models with.")
    ] = False,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> int:
    """Write pictures with all that made them as a data set."""
    with opened(database, folder) as history:
        if preferences:
            from pictura.history.preferences import export_preferences

            if words or collection or min_stars or format:
                raise InputError("preferences are of the whole history; leave out words and other options")
            pairs = export_preferences(history, out)
            told = {"path": str(out), "pairs": pairs.pairs, "choices": pairs.choices, "stars": pairs.stars,
                    "pictures": pairs.pictures, "left_out": pairs.left_out}  # fmt: skip
            text = f"{pairs.pairs} pairs of {pairs.pictures} pictures are in {out}"
            print(json.dumps(told)) if as_json else say(text)
            return 0
        from pictura.history.exporting import export as exported

        form = format or ("zip" if out.suffix.lower() == ".zip" else "folder")
        filters = {"collection": collection, "min_stars": min_stars}
        done = exported(history.walk(" ".join(words or ()), **filters), out, form)
    for id in done.missing:
        say(f"left out: the file of {id} is gone or damaged")
    if as_json:
        print(json.dumps({"path": str(out), "count": done.count, "missing": list(done.missing)}))
    else:
        say(f"{done.count} pictures are in {out}")
    return 1 if done.missing else 0


def backup(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or an older backup.")],
    as_json: JsonOption = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> int:
    """Copy the history into a folder while it is in use; again, only what is new.

    The folder is a history itself: pictura history search --folder DIR reads it.
    """
    from pictura.history.backup import backup as backed_up

    with opened(database, folder) as history:
        return _tell_copied(backed_up(history, target), as_json)


def restore(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="What `pictura history backup` wrote.")],
    as_json: JsonOption = False,
    folder: FolderOption = None,
) -> int:
    """Make a backup the history, where there is none."""
    from pictura.history.backup import restore as restored
    from pictura.history.database import default_folder

    return _tell_copied(restored(source, folder or default_folder()), as_json)


def check(
    clean: Annotated[
        bool, typer.Option("--clean", help="Remove files that belong to no picture any more.")
    ] = False,
    as_json: JsonOption = False,
    database: DatabaseOption = None,
    folder: FolderOption = None,
) -> int:
    """Compare every picture's file with what was stored; exit with 1 if anything is lost."""
    from pictura.cli.described import size_of
    from pictura.history.checking import check as checked

    with opened(database, folder) as history:
        found = checked(history, clean=clean)
    if as_json:
        print(json.dumps(asdict(found) | {"sound": found.sound}))
        return 0 if found.sound else 1
    for state in ("missing", "damaged"):
        for id in getattr(found, state):
            print(f"{state}: {id}")
    if found.database is not None:
        print(f"database: {found.database}")
    if found.sound:
        print(f"sound: {found.pictures} pictures")
    if left := found.orphans + found.parts:
        done = "removed" if clean else "can be removed with --clean"
        say(f"{left} files of no picture, {size_of(found.bytes)}, {done}")
    return 0 if found.sound else 1


def _tell_copied(done: Copied, as_json: bool) -> int:
    from pictura.cli.described import size_of

    for name in done.missing:
        say(f"missing: {name}")
    if as_json:
        print(json.dumps(asdict(done) | {"folder": str(done.folder), "missing": list(done.missing)}))
    else:
        say(f"{done.pictures} pictures are in {done.folder}, {done.new} of them new ({size_of(done.bytes)})")
    return 1 if done.missing else 0
