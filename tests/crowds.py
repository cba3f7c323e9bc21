"""Many threads that do the same at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any


def together(work: Callable[[Any], Any], arguments: Iterable[Any]) -> list[Any]:
    """`work` of each argument, in order; each in a thread of its own, begun when all are there.

    The first error is raised when all have ended.
    """
    arguments = list(arguments)
    start = Barrier(len(arguments))

    def one(argument: Any) -> Any:
        start.wait()
        return work(argument)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(one, arguments))
