"""Filters keep pictures out of a data set: unsafe ones, broken ones, whatever a project cannot use.

A filter is a module of this folder, or an entry point of the group `pictura.filters`, with a function
`refuse(pictures) -> one value a picture`: None to keep it, or why it is refused. A safety checker is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from pictura.discovery import found, loaded
from pictura.picture import Picture

__all__ = ["Filter", "filter_named", "names"]

Filter = Callable[[Sequence[Picture]], Sequence[str | None]]


def names() -> tuple[str, ...]:
    """The filters there are, without importing them."""
    return tuple(_all())


def filter_named(name: str) -> Filter:
    """Its `refuse`. Raises `ParameterError` for an unknown name."""
    return cast(Filter, loaded("filter", name, _all()))


def _all() -> Mapping[str, str]:
    return found("batch.filters", "refuse", group="pictura.filters")
