"""What this machine can do: measured once, then kept in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from pictura.errors import FileError
from pictura.picture.files import atomic, cache_folder

__all__ = ["free_memory", "kept", "seconds"]

_lock = threading.RLock()


def kept(name: str, measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    """What `measure` returned the first time on this machine with this version of torch."""
    with _lock:
        path = cache_folder() / "measured" / f"{_machine()}-{name}.json"
        return _kept(path, measure)


@cache
def _kept(path: Path, measure: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
    with suppress(OSError, ValueError, TypeError, AttributeError):  # missing or damaged: measured again
        return {str(k): float(v) for k, v in json.loads(path.read_text("utf-8")).items()}
    found = dict(measure())
    with suppress(OSError, FileError):  # a cache that cannot be written costs a measurement, no more
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path, overwrite=True) as file:
            file.write(json.dumps(found, indent=1).encode())
    return found


def seconds(call: Callable[[], object], spend: float = 0.06) -> float:
    """Processor seconds of this thread in the quickest of several calls: what else the machine does costs
    little of it. To be asked with one thread of torch's."""
    call()  # a first call also prepares
    best, spent = float("inf"), 0.0
    while spent < spend:
        started = time.thread_time()
        call()
        elapsed = max(time.thread_time() - started, 1e-7)
        best, spent = min(best, elapsed), spent + elapsed
    return best


def free_memory() -> int:
    """Bytes that can be taken without driving others out, within the limit of a container; 0 where the system
    does not say."""
    found = 0
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found = 1024 * int(line.split()[1])
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        used = int((group / "memory.current").read_text())
        found = min(found, max(int((group / "memory.max").read_text()) - used, 0))
    return found


@cache
def _machine() -> str:
    """A name for this processor with this torch."""
    seen = [platform.machine(), platform.processor(), str(os.cpu_count()), metadata.version("torch")]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        seen += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16]
