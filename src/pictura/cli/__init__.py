"""The `pictura` command.

`main` is the entry point. Everything else is imported when it runs, and torch only by commands that compute.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv[1:]` if none is given) and return its exit status: 0, 1, 2 or 130."""
    from pictura.cli.app import run

    return run(argv)
