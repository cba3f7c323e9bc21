"""Forms of a finished data set, one a file; others by the entry points `pictura.outputs`.

A module has `OUTPUT`. Those with a `shard` put many pictures into one file; these wait in the spool until all
of a file's pictures are settled. The others keep each picture as the file it came as.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from pictura.arrow import Row
from pictura.batch.ledger import Ledger
from pictura.batch.plan import Plan
from pictura.batch.store import Store
from pictura.discovery import found, loaded

__all__ = ["Output", "Stored", "load", "names"]

Stored = Row


@dataclass(frozen=True, kw_only=True)
class Output:
    """help: for people. files: glob pattern of the data files, for the data card.

    shard: the name of file `number`. write: pictures, in order, into a file, the same bytes every time.
    read: (file name, PNG) of every picture in such a file, in order. finish: what else is written at the end.
    """

    help: str
    files: str
    shard: Callable[[Plan, int], str] | None = None
    write: Callable[[BinaryIO, Iterable[Stored], Plan], None] | None = None
    read: Callable[[Path], Iterator[tuple[str, bytes]]] | None = None
    finish: Callable[[Store, Ledger, Plan], None] = lambda store, ledger, plan: None


def names() -> tuple[str, ...]:
    """The forms there are, without importing them."""
    return tuple(_all())


def load(name: str) -> Output:
    """The form called `name`; ParameterError with the nearest name when there is none."""
    return cast(Output, loaded("format", name, _all()))


def _all() -> Mapping[str, str]:
    return found("batch.outputs", "OUTPUT", group="pictura.outputs")
