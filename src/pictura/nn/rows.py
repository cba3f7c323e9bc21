"""Rows of a batch on the cores of a CPU, each answered by one thread alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

_torch_threads = threading.Lock()  # the number of threads is one for the whole process
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
    _torch_threads = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_after)


def by_rows(function: Callable[..., Tensor], **inputs: Tensor) -> Tensor:
    """`function(**inputs)`, (b, ...) -> (b, ...), with the rows dealt out to threads on a CPU.

    A matrix product that several threads share is cut where its size says, so the last bits of a row depend
    on how many rows there are and on the machine's number of cores. Here a thread has whole rows and shares
    nothing: the bits are the same in any batch and on any number of cores, and small networks run faster.
    """
    some = next(iter(inputs.values()))
    if some.device.type != "cpu":
        return function(**inputs)
    with _torch_threads:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            workers = max(threads, _before_fork)
            parts = min(workers, len(some))
            if parts == 1:
                return function(**inputs)
            grad = torch.is_grad_enabled()

            def part(values: dict[str, Tensor]) -> Tensor:
                with torch.set_grad_enabled(grad):
                    return function(**values)

            cut = {name: value.tensor_split(parts) for name, value in inputs.items()}
            jobs = [{name: values[i] for name, values in cut.items()} for i in range(parts)]
            return torch.cat(list(_pool(workers).map(part, jobs)))
        finally:
            torch.set_num_threads(threads)
