"""`pictura train`: a recipe in, or what people liked, and a run that can be stopped and continued."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pictura.cli.options import decimal, model_names, whole
from pictura.cli.show import progress, say
from pictura.errors import Cancelled, FileError, InputError, ParameterError, TrainingError, shown

if TYPE_CHECKING:
    from pictura.training.recipe import Recipe

LOG = "log.jsonl"
SEEN = 8  # times each pair is seen, and the largest batch, if nothing else is said
BATCH = 16
BETA, RATE = 200, 3e-5
WAIT = 0.5  # seconds between two looks at the log


def train(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="A TOML file, such as recipes/scenes.toml.")
    ] = None,
    preferences: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Instead of a recipe: pairs of pictures, as `pictura history export --preferences` writes "
            "them, by which --model is tuned.",
        ),
    ] = None,
    reward: Annotated[
        bool,
        typer.Option("--reward", help="Learn to score pictures from --preferences, in place of tuning."),
    ] = False,
    model: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="What is tuned: a name or a preset folder.", autocompletion=model_names
        ),
    ] = "scenes",
    samples: Annotated[int | None, whole(f"Pairs to learn from; each {SEEN} times if not given.")] = None,
    beta: Annotated[
        float | None, decimal(f"How closely the tuned model is held to --model; {BETA} if not given.")
    ] = None,
    rate: Annotated[float | None, decimal(f"Learning rate of the tuning; {RATE} if not given.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the run is kept; runs/NAME of what is given if not given."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on from a run in --out, or refuse to touch it.")
    ] = True,
    processes: Annotated[
        int | None, whole("Processes to share the work; the recipe's own if not given.")
    ] = None,
) -> None:
    """Train a model from a recipe, or by what people liked.

    The run can be stopped at any time; the same command goes on from its last checkpoint to the same result.
    """
    given = recipe or preferences
    if given is None or (recipe is not None and preferences is not None):
        raise InputError("nothing says what to learn, or two things do; give a RECIPE or --preferences DIR")
    if reward and preferences is None:
        raise ParameterError("a reward model learns from pairs; add --preferences DIR", parameter="reward")
    if reward:
        return _reward(given, out or Path("runs") / f"{given.name}-reward")
    if preferences is not None:
        plan = _tuning(given, model, samples, BETA if beta is None else beta, RATE if rate is None else rate)
    else:
        plan = _planned(given)
    if processes is not None:
        if not isinstance(processes, int) or processes < 1:
            message = f"processes is {shown(processes)}; give a whole number, 1 or more"
            raise ParameterError(message, parameter="processes")
        plan = plan.model_copy(update={"processes": processes})
    folder = Path("runs") / given.stem if out is None else out
    if not resume and folder.exists() and any(folder.iterdir()):
        raise FileError(f"{shown(str(folder))} is not empty; choose another folder, or let it resume")

    from pictura.training.trainer import launch

    with progress("samples", plan.samples) as bar, followed(folder / LOG, bar):
        try:
            launch(plan, folder)
        except KeyboardInterrupt:
            raise Cancelled(f"interrupted; the same command goes on from {folder}") from None
    say(f"trained; the model is in {folder / 'preset'}")


def _planned(recipe: Path) -> Recipe:
    from pictura.training.recipe import read

    if not recipe.is_file():
        raise FileError(
            f"there is no recipe {shown(str(recipe))}; give a TOML file such as recipes/scenes.toml"
        )
    try:
        return read(recipe)
    except TrainingError as error:  # a recipe is input
        raise InputError(str(error)) from error


def _tuning(preferences: Path, model: str, samples: int | None, beta: float, rate: float) -> Recipe:
    """A recipe that tunes `model` by the pairs in `preferences`."""
    from pictura import checkpoints
    from pictura.training.examples import read
    from pictura.training.recipe import parse

    for name, value in (("samples", samples), ("beta", beta), ("rate", rate)):
        if value is not None and not (isinstance(value, (int, float)) and 0 < value < 1e9):
            raise ParameterError(f"{name} is {shown(value)}; give a number above 0", parameter=name)
    if isinstance(samples, float):
        raise ParameterError(f"samples is {samples}; give a whole number", parameter="samples")
    pairs = len(read(preferences, pairs=True))
    found = checkpoints.find(model)
    if found.layout.kind != "pictura":
        raise ParameterError(
            f"model {shown(model)} is no preset of Pictura; make one with `pictura models convert`",
            parameter="model",
        )
    batch, seen = min(BATCH, pairs), pairs * SEEN if samples is None else samples
    data = {"path": str(preferences), "pairs": True, "size": found.recipe.defaults.get("size")}
    table = {
        "start": str(found.layout.path),
        "data": "folder",
        "samples": seen,
        "batch": batch,
        "beta": beta,
        "ema": 0.9,
        "log_every": 1,
        "optimizer": {"lr": rate, "warmup": max(1, seen // batch // 10)},
        "stages": [{"data": data}],
    }
    return parse(table, "tuning")


def _reward(preferences: Path, out: Path) -> None:
    from pictura.evaluation.reward import train
    from pictura.training.examples import read

    if out.exists() and any(out.iterdir()):
        raise FileError(f"{shown(str(out))} is not empty; choose another folder with --out")
    made = train(read(preferences, pairs=True))
    made.save(out)
    for name, value in made.measured.items():
        say(f"{name}: {value}")
    scorer = out if out.is_absolute() else f"./{out}"
    say(f"learnt; the reward model is in {out}: use it with --option best_of=8 --option scorer={scorer}")


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
