"""`pictura data`: data sets to train and compare on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pictura.cli.options import whole
from pictura.cli.show import progress, say

app = typer.Typer(help="Data sets to train and compare on.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Data sets to train and compare on."""


@app.command()
def scenes(
    count: Annotated[int, whole("How many scenes to write.")],
    out: Annotated[Path, typer.Option(help="A new folder, or one that this command began.", metavar="DIR")],
    format: Annotated[
        str, typer.Option(help="folder (imagefolder with metadata.jsonl), parquet or webdataset.")
    ] = "folder",
    split: Annotated[str, typer.Option(help="train, validation or held-out.")] = "train",
    start: Annotated[int, whole("Number of the first scene.")] = 0,
    shard: Annotated[int, whole("Scenes in one Parquet or tar file.")] = 1000,
) -> None:
    """Write the emoji scenes as a data set that other tools can load.

    Scene number i of a split is the same on every machine. A run that was stopped is continued by giving the
    same command again; a folder that holds anything else is never touched.
    """
    from pictura.datasets.scenes.write import write

    done = 0
    with progress("scenes", count) as bar:
        for so_far in write(out, count=count, start=start, split=split, format=format, shard=shard):
            bar.advance(so_far - done)
            done = so_far
    say(f"{done} scenes of split {split} are in {out}")
