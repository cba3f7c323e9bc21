"""`pictura train`: a recipe in, a run that can be stopped and continued."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pictura.cli.generate import number
from pictura.cli.show import progress, say
from pictura.errors import Cancelled, FileError, InputError, ParameterError, TrainingError, shown

LOG = "log.jsonl"
WAIT = 0.5  # seconds between two looks at the log


def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A TOML file, such as recipes/scenes.toml.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the run is kept; runs/NAME if not given.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on from a run in --out, or refuse to touch it.")
    ] = True,
    processes: Annotated[
        int | None,
        typer.Option(
            parser=number,
            metavar="INTEGER",
            help="Processes to share the work; the recipe's own if not given.",
        ),
    ] = None,
) -> None:
    """Train a model from a recipe.

    The run can be stopped at any time; the same command goes on from its last checkpoint to the same result.
    """
    from pictura.training.recipe import read

    if not recipe.is_file():
        raise FileError(
            f"there is no recipe {shown(str(recipe))}; give a TOML file such as recipes/scenes.toml"
        )
    try:
        plan = read(recipe)
    except TrainingError as error:  # a recipe is input
        raise InputError(str(error)) from error
    if processes is not None:
        if not isinstance(processes, int) or processes < 1:
            message = f"processes is {shown(processes)}; give a whole number, 1 or more"
            raise ParameterError(message, parameter="processes")
        plan = plan.model_copy(update={"processes": processes})
    folder = Path("runs") / recipe.stem if out is None else out
    if not resume and folder.exists() and any(folder.iterdir()):
        raise FileError(f"{shown(str(folder))} is not empty; choose another folder, or let it resume")

    from pictura.training.trainer import launch

    with progress("samples", plan.samples) as bar, followed(folder / LOG, bar):
        try:
            launch(plan, folder)
        except KeyboardInterrupt:
            raise Cancelled(f"interrupted; the same command goes on from {folder}") from None
    say(f"trained; the model is in {folder / 'preset'}")


@contextmanager
def followed(log: Path, bar: Any) -> Iterator[None]:
    """While the block runs, each new line of the training log moves `bar` and is told to the user."""
    done = threading.Event()
    start = log.stat().st_size if log.exists() else 0
    thread = threading.Thread(target=_follow, args=(log, start, bar, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _follow(log: Path, position: int, bar: Any, done: threading.Event) -> None:
    samples = 0
    while True:
        last = done.wait(WAIT)  # what was written until now is read once more
        if log.exists():
            with open(log, encoding="utf-8") as file:
                file.seek(position)
                text = file.read()
            whole, newline, _ = text.rpartition("\n")
            position += len((whole + newline).encode())
            for line in whole.splitlines():
                entry = json.loads(line)
                bar.advance(entry["samples"] - samples)
                samples = entry["samples"]
                with bar.paused():
                    say("  ".join(f"{name} {value}" for name, value in entry.items()))
        if last:
            return
