"""Write docs/cli.md from the commands themselves: python scripts/make_cli_docs.py [--check]

With --check nothing is written; the exit status is 1 if the page is not current.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from pictura.cli.app import app

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The `pictura` command

<!-- Written by scripts/make_cli_docs.py from the commands' own help; do not edit. -->

Results go to standard output, everything else (progress, notes, errors) to standard error.

| exit status | meaning |
|---|---|
| 0 | done |
| 1 | failed, or some pictures failed, or a comparison found a difference |
| 2 | bad input, told in one line |
| 130 | interrupted; pictures that were finished are kept |

| environment variable | meaning |
|---|---|
| `PICTURA_SHOW` | how to draw pictures on the terminal: kitty, iterm2, sixel, blocks or none |
| `PICTURA_DEBUG` | set to 1, an unexpected error shows where it came from |
| `NO_COLOR` | if set, no pictures are drawn unless `--show` asks for them |

`pictura --install-completion` installs completion for the shell in use.
"""


def page() -> str:
    """The whole page as Markdown."""
    group = typer.main.get_command(app)
    return "\n".join([HEAD, *(part for path, c in commands(group) if path for part in section(path, c))])


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command below `command`, groups before what they hold."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def section(path: tuple[str, ...], command: Any) -> Iterator[str]:
    """One command: what it does, how it is called, a table of its arguments and options."""
    name = " ".join(("pictura", *path))
    yield f"{'#' * (len(path) + 1)} {name}\n"
    yield inspect.cleandoc(command.help) + "\n"
    if hasattr(command, "commands"):
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    usage = [name, *(metavar(p) for p in arguments), *(["[OPTIONS]"] if options else [])]
    yield f"```text\n{' '.join(usage)}\n```\n"
    if command.params:
        yield "| | |\n|---|---|"
        yield from (row(p) for p in (*arguments, *options))
        yield ""


def row(parameter: Any) -> str:
    """A line of the table: how the parameter is spelt, and its help with the default."""
    if parameter.param_type_name == "argument":
        spelt = f"`{metavar(parameter)}`"
    else:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        spelt = names if parameter.is_flag else f"{names} `{metavar(parameter)}`"
    told = parameter.help.strip()
    default = parameter.default
    if parameter.required and parameter.param_type_name == "option":
        told += " Required."
    elif default is not None and not isinstance(default, bool) and not callable(default):
        told += f" Default: `{default}`."
    cells = [cell.replace("|", "\\|") for cell in (spelt, told)]
    return f"| {cells[0]} | {cells[1]} |"


def metavar(parameter: Any) -> str:
    """The placeholder of a value, such as FILE."""
    return str(parameter.metavar or ("TEXT" if parameter.opts else parameter.name.upper()))


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text() == text else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
