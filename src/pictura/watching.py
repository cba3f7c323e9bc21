"""Between the events of a call and whoever waits for them: a progress bar, asyncio, the best of several."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any, Protocol

from pictura.errors import EngineError
from pictura.picture import Event, Failure, Picture, Preview, Step

__all__ = ["Scorer", "asynchronous", "best", "with_bar"]


class Scorer(Protocol):
    """How well each picture shows its own request's prompt; more is better."""

    def __call__(self, pictures: Sequence[Picture], /) -> Sequence[float]: ...


def best(events: Iterator[Event], count: int, scorer: Scorer) -> Iterator[Event]:
    """Of each `count` neighbouring pictures the one that `scorer` likes best; the rest is dropped.

    Its request has the seed that made it, so it can be made again without its rivals.
    """
    groups: dict[int, list[Event]] = {}
    with closing(events) as source:  # type: ignore[type-var]  # a generator
        for event in source:
            index = event.index // count
            if isinstance(event, Step):
                total = None if event.total is None else event.total * count
                done = sum(isinstance(old, Step) for old in groups.setdefault(index, [])) + 1
                groups[index].append(event)
                yield Step(index=index, step=done, total=total)
            elif isinstance(event, Preview):
                yield replace(event, index=index)
            else:
                groups.setdefault(index, []).append(event)
                ended = [old for old in groups[index] if isinstance(old, (Picture, Failure))]
                if len(ended) == count:
                    del groups[index]
                    yield _winner(sorted(ended, key=lambda end: end.index), index, scorer)


def _winner(ended: Sequence[Picture | Failure], index: int, scorer: Scorer) -> Picture | Failure:
    pictures = [end for end in ended if isinstance(end, Picture)]
    if not pictures:
        return replace(ended[0], index=index)
    try:
        scores = [float(score) for score in scorer(pictures)]
        at = max(range(len(pictures)), key=scores.__getitem__)
    except Exception as error:
        failed = EngineError(f"the scorer failed ({type(error).__name__}: {error}); try another")
        failed.__cause__ = error
        return Failure(index=index, request=pictures[0].request, error=failed)
    note = f"best of {len(ended)}, score {scores[at]:.3g}"
    return replace(pictures[at], index=index, notes=(*pictures[at].notes, note))


def with_bar(events: Iterator[Event]) -> Iterator[Event]:
    """`events` unchanged, while a bar on standard error shows how far they are."""
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(file=sys.stderr, force_terminal=True), transient=True)
    steps: dict[int, int] = {}
    pictures = known = 0
    with bar:
        task = bar.add_task("pictures", total=None)
        for event in events:
            if isinstance(event, Step):
                known = max(known, event.total or 0)
                steps[event.index] = event.step
                bar.update(task, completed=sum(steps.values()), total=known * len(steps) or None)
            elif isinstance(event, (Picture, Failure)):
                pictures += 1
                bar.update(task, description=f"pictures ({pictures} done)")
            yield event


async def asynchronous(start: Callable[[], Iterator[Any]]) -> AsyncGenerator[Any]:
    """What `start()` iterates over, made in a thread of its own, one at a time as they are asked for.

    Leaving early, or cancelling, closes the iterator in that thread as soon as its current step is done.
    """
    loop, end = asyncio.get_running_loop(), object()
    thread = ThreadPoolExecutor(1, thread_name_prefix="pictura")
    events: list[Iterator[Any]] = []

    def following() -> Any:
        if not events:
            events.append(start())
        return next(events[0], end)

    def close() -> None:
        for iterator in events:
            if hasattr(iterator, "close"):
                iterator.close()

    try:
        while (event := await loop.run_in_executor(thread, following)) is not end:
            yield event
    finally:
        thread.submit(close)
        thread.shutdown(wait=False)
