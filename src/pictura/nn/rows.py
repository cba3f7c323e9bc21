"""Rows of a batch on the cores of a CPU, each answered by one thread alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

_torch_threads = threading.RLock()  # the number of threads is one for the whole process
_this = threading.local()
_before_fork = 1  # in a forked process, its parent's number of threads


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "rows")


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
            with torch.set_grad_enabled(grad):
                return function(**values)

        cut = {name: value.tensor_split(parts) for name, value in inputs.items()}
        jobs = [{name: values[i] for name, values in cut.items()} for i in range(parts)]
        return torch.cat(list(_pool(workers).map(part, jobs)))
