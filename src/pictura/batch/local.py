"""The local engine: one model in this process, pictures as it makes them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain
from typing import Any

from pictura.batch.drawn import Drawn, failed, packed
from pictura.batch.plan import Item, Plan
from pictura.errors import InputError
from pictura.picture import Failure, Picture
from pictura.request import Request

__all__ = ["draw", "pictures"]

Wanted = tuple[Item, int]  # an item and the number of one of its candidates


def draw(model: Any, items: Iterator[Item], plan: Plan, window: int) -> Generator[Drawn, None, None]:
    """`pictures` as the files that they will be."""
    for drawn in pictures(model, items, plan, window):
        yield packed(drawn, looks=plan.needs_looks)


def pictures(model: Any, items: Iterator[Item], plan: Plan, window: int) -> Generator[Drawn, None, None]:
    """Every candidate of every item that is not stored, in the order in which the model finishes them.

    At most `window` are worked on at once. What the model refuses is the problem of that item alone; an
    error of `items` itself is raised once what was begun is done.
    """
    wanted = ((item, at) for item in items for at in range(len(item.candidates)) if at not in item.stored)
    while (first := next(wanted, None)) is not None:
        begun: dict[int, Wanted] = {}
        try:
            yield from _stream(model, chain([first], wanted), plan, window, begun)
        except _SourceError as error:
            raise error.cause from None
        except InputError as error:
            if not begun:
                raise
            # A stream ends at the first request that the model refuses; which one that was is only sure
            # for a request that is alone.
            for item, at in begun.values():
                yield from _alone(model, item, at, plan, error)


def _stream(
    model: Any, wanted: Iterator[Wanted], plan: Plan, window: int, begun: dict[int, Wanted]
) -> Iterator[Drawn]:
    """One stream of the model. `begun` holds what was given to it and has not come back."""

    def requests() -> Iterator[Request]:
        number = 0
        while True:
            try:
                one = next(wanted, None)
            except InputError as error:
                raise _SourceError(error) from error
            if one is None:
                return
            begun[number] = one
            number += 1
            yield one[0].candidates[one[1]]

    # A data set has its own books, and is often larger than a history should be.
    with closing(model.stream(requests(), strict=plan.strict, batch_size=window, history=False)) as events:
        for event in events:
            if isinstance(event, (Picture, Failure)):
                item, at = begun.pop(event.index)
                yield (
                    failed(item, at, event.error)
                    if isinstance(event, Failure)
                    else Drawn(item=item, candidate=at, picture=event)
                )


def _alone(model: Any, item: Item, at: int, plan: Plan, error: InputError) -> Iterator[Drawn]:
    begun: dict[int, Wanted] = {}
    try:
        yield from _stream(model, iter([(item, at)]), plan, 1, begun)
    except InputError as refused:
        yield failed(item, at, refused)


class _SourceError(Exception):
    """An error of the prompts, on its way through a model's stream, which knows errors of requests only."""

    def __init__(self, cause: InputError) -> None:
        super().__init__(str(cause))
        self.cause = cause
