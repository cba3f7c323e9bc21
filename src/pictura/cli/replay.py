"""`pictura replay` and `pictura inspect`: what a picture file says, and whether it is so."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pictura.cli.generate import JsonOption, keep, teller
from pictura.cli.options import DtypeOption, HistoryOption, LineOption, OverwriteOption, ShowOption
from pictura.cli.output import saver
from pictura.cli.service import KeyOption, settings_again
from pictura.cli.show import say
from pictura.errors import FileError, shown

if TYPE_CHECKING:
    from pictura.history.replaying import Replay
    from pictura.picture.metadata import Metadata

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A PNG, JPEG or WebP picture.")]


def replay(
    file: FileArgument,
    check: Annotated[
        bool, typer.Option("--check", help="Store nothing; compare the pixels and exit with 1 if any differ.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Where to put the new picture, as in generate.")
    ] = None,
    dtype: DtypeOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    show_pictures: ShowOption = None,
    history: HistoryOption = True,
    api_key_env: KeyOption = None,
) -> int:
    """Make a picture again from what its file says.

    Where that is a server's address, no key is sent there unless --api-key-env names it.
    """
    from pictura.picture.metadata import read_metadata

    metadata = read_metadata(file)
    if metadata.source != "pictura" or metadata.request is None or metadata.request.model is None:
        name = shown(str(file))
        raise FileError(f"{name} does not say how Pictura made it; `pictura inspect` shows what it says")
    save = None if check else saver(out, overwrite=overwrite, several=False)

    from pictura.history.replaying import compared
    from pictura.picture import Picture
    from pictura.task import TextToImage

    preset = metadata.request.model
    model = TextToImage.from_preset(preset, dtype=dtype, **settings_again(preset, api_key_env))
    place = None if history and not check else False
    events = model.stream([metadata.request], strict=not metadata.ignored, history=place)
    if save is not None:
        return keep(events, 1, save, teller(show_pictures, as_json), as_json)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / file.name  # encoded the same way, so that a JPEG is compared with a JPEG
        if keep(events, 1, lambda made: made.save(copy), lambda *_: None, as_json):
            return 1
        found = compared(Picture.open(file), Picture.open(copy))
    return tell_replay(str(file), found, as_json)


def tell_replay(name: str, found: Replay, as_json: bool) -> int:
    """Say whether a picture came out the same; the exit status."""
    from pictura.history.replaying import sentences

    told = sentences(found.differences)
    pixels = None if found.identical else told.pop(0)
    if as_json:
        result = {"file": name, "identical": found.identical, "difference": pixels}
        print(json.dumps(result | {"differences": found.differences}), flush=True)
    else:
        print(f"identical: {name}" if pixels is None else f"different: {name}: {pixels}")
    if pixels is not None:
        for line in told:
            say(line)
    return 0 if found.identical else 1


def inspect(file: FileArgument, as_json: LineOption = False) -> int:
    """Print how a picture was made, by Pictura or by a tool that writes AUTOMATIC1111's parameters."""
    from pictura.picture.metadata import read_metadata

    metadata = read_metadata(file)
    facts = _facts(metadata)
    if as_json:
        print(json.dumps({"file": str(file)} | facts))
    else:
        for name, value in _flat(facts):
            print(f"{name}: {value}")
    if metadata.source == "none":
        say(f"{file} says nothing about how it was made")
        return 1
    return 0


def _facts(metadata: Metadata) -> dict[str, Any]:
    return {
        "source": metadata.source,
        "request": None if metadata.request is None else metadata.request.to_dict(),
        "model_digest": metadata.model_digest,
        "version": metadata.version,
        "ignored": list(metadata.ignored),
        "notes": list(metadata.notes),
        "settings": dict(metadata.settings),
    }


def _flat(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts that there are, one a line; a request's fields stand for themselves."""
    lines: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if name in ("request", "settings") and value:
            own = facts["request"] if name == "settings" else {}
            lines += [(key, inner) for key, inner in value.items() if name == "request" or key not in own]
        elif name in ("ignored", "notes"):
            lines += [(name.removesuffix("s"), inner) for inner in value]
        elif value:
            lines.append((name, value))
    return [(name, _text(value)) for name, value in lines]


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=False)
