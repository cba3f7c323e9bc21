"""Rows of a batch on the cores of a CPU, each answered by one thread alone."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
_torch_threads = threading.RLock()  # the number of threads is one for the whole process
_this = threading.local()
_before_fork = 1  # in a forked process, its parent's number of threads


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    # A new thread learns how many torch may use, which is one now, when it asks or computes by torch itself.
    # oneDNN does not ask: a thread that begins with it gets OpenMP threads of its own. In all these are more
    # than there are cores, and OpenMP then lets the whole process sleep between any two operations.
    return ThreadPoolExecutor(threads, "rows", initializer=torch.get_num_threads)


def _before() -> None:
    global _before_fork
    _before_fork = torch.get_num_threads()


def _after() -> None:
    """A forked process has none of its parent's threads; `device` keeps torch itself to one there."""
    global _torch_threads
    _pool.cache_clear()
    _torch_threads = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_after)


@contextmanager
def one_thread() -> Iterator[int]:
    """torch with one thread while the block runs, a single block at a time; gives how many it may use else.

    For small tensors: to wake other threads takes longer than the work, and for some time afterwards they
    spin where someone else could compute. What is computed here does not depend on the number of cores.
    """
    with _torch_threads:
        threads = _allowed()
        torch.set_num_threads(1)
        try:
            yield max(threads, _before_fork)
        finally:
            torch.set_num_threads(threads)


def _allowed() -> int:
    """How many threads torch may use. A thread that first computed while another held torch to one has learnt
    that for good; so, once, what a new one learns now counts."""
    if not hasattr(_this, "told"):
        _this.told = True
        with ThreadPoolExecutor(1) as fresh:
            torch.set_num_threads(fresh.submit(torch.get_num_threads).result())
    return torch.get_num_threads()


@contextmanager
def _dealt() -> Iterator[None]:
    """Marks this thread as one of several: what it runs is dealt out no further."""
    before, _this.dealt = getattr(_this, "dealt", False), True
    try:
        yield
    finally:
        _this.dealt = before


def deal(function: Callable[[T], object], items: Sequence[T]) -> None:
    """`function(item)` for every item, dealt out to threads of one core each; parts of a part in turn.

    For many operations on parts of a CPU's tensors: each thread works through parts of its own, where torch
    would stop all threads after every operation. Which thread answers makes no difference to the bits.
    """
    if getattr(_this, "dealt", False) or len(items) < 2:
        for item in items:
            function(item)
        return
    with one_thread() as workers:
        grad, queue, lock = torch.is_grad_enabled(), deque((item,) for item in items), threading.Lock()

        def work(_: int) -> None:
            with torch.set_grad_enabled(grad), _dealt():
                while queue:
                    with lock:
                        item = queue.popleft() if queue else None
                    if item is not None:
                        function(item[0])

        if workers == 1:
            work(0)
        else:
            list(_pool(workers).map(work, range(min(workers, len(items)))))


def like_dealt(function: Callable[[], T]) -> T:
    """function() by one thread, as the parts that `deal` deals out are computed."""
    if getattr(_this, "dealt", False):
        return function()
    with one_thread():
        return function()


def by_rows(function: Callable[..., Tensor], **inputs: Tensor) -> Tensor:
    """`function(**inputs)`, (b, ...) -> (b, ...), with the rows dealt out to threads on a CPU.

    A matrix product that several threads share is cut where its size says, so the last bits of a row depend
    on how many rows there are and on the machine's number of cores. Here a thread has whole rows and shares
    nothing: the bits are the same in any batch and on any number of cores, and small networks run faster.
    """
    some = next(iter(inputs.values()))
    if some.device.type != "cpu":
        return function(**inputs)
    with one_thread() as workers:
        # Threads of one row each would mostly wait for each other at the interpreter's lock.
        parts = min(workers, len(some), max(2, len(some) // 2))
        if parts == 1:
            return function(**inputs)
        grad = torch.is_grad_enabled()

        def part(values: dict[str, Tensor]) -> Tensor:
            with torch.set_grad_enabled(grad), _dealt():
                return function(**values)

        cut = {name: value.tensor_split(parts) for name, value in inputs.items()}
        jobs = [{name: values[i] for name, values in cut.items()} for i in range(parts)]
        return torch.cat(list(_pool(workers).map(part, jobs)))


def singly(function: Callable[..., Tensor], *, dealt: bool, **inputs: Tensor) -> Tensor:
    """`function(**inputs)`, (b, ...) -> (b, ...), of one row at a time: the bits are those of a row alone,
    whatever the network. dealt: each row by one thread of several; otherwise by all threads together."""
    count = len(next(iter(inputs.values())))
    found: dict[int, Tensor] = {}

    def answer(i: int) -> None:
        found[i] = function(**{name: value[i : i + 1] for name, value in inputs.items()})

    if dealt and count == 1:
        like_dealt(lambda: answer(0))
    elif dealt:
        deal(answer, range(count))
    else:
        for i in range(count):
            answer(i)
    return torch.cat([found[i] for i in range(count)])
