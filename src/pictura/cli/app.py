"""The commands of `pictura`, and the one place where errors become exit statuses.

    0    done
    1    failed, or some pictures failed, or `replay --check` found a difference
    2    bad input
    130  interrupted; pictures that were finished are kept

Results go to standard output, everything meant for a person to standard error. A failure is one line, never a
traceback; `PICTURA_DEBUG=1` shows where an unexpected one came from.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from pictura.cli import data, history, models
from pictura.cli import serve as serving
from pictura.cli.batch import batch
from pictura.cli.compare import compare
from pictura.cli.doctor import doctor
from pictura.cli.evaluate import evaluate
from pictura.cli.generate import generate
from pictura.cli.replay import inspect, replay
from pictura.cli.show import say
from pictura.cli.train import train
from pictura.errors import PicturaError

app = typer.Typer(
    name="pictura",
    help="Text to pictures, on your own machine.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command()(replay)
app.command()(inspect)
app.command()(compare)
app.command()(batch)
app.add_typer(models.app, name="models")
app.add_typer(history.app, name="history")
app.add_typer(data.app, name="data")
app.command()(train)
app.command()(evaluate)
app.add_typer(serving.app, name="serve")
app.command()(doctor)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    command = typer.main.get_command(app)
    try:
        status = command.main(
            args=None if argv is None else list(argv), prog_name="pictura", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except PicturaError as error:
        say(f"error: {error}")
        return error.exit_code
    except typer.TyperException as error:
        if error.format_message():  # nothing is left to say where the help was shown
            say(f"error: {one_line(error.format_message())}")
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        return 130
    except Exception as error:
        if os.environ.get("PICTURA_DEBUG"):
            raise
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            say("error: torch is not installed, and drawing here needs it; pip install 'pictura[local]'")
            return 1
        say(f"error: {type(error).__name__}: {one_line(str(error))} (PICTURA_DEBUG=1 shows where)")
        return 1


def one_line(text: str) -> str:
    """`text` with its white space folded."""
    return " ".join(text.split())


def _version(wanted: bool) -> None:
    if wanted:
        from pictura import __version__

        print(f"pictura {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Text to pictures, on your own machine."""
