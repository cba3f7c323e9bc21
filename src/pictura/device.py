"""Where networks compute and in which precision: by measurement, not belief."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from typing import Any

import torch

from pictura.errors import ParameterError, did_you_mean, shown

__all__ = ["facts", "pick", "precision", "speed"]

_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}
_GAIN = 1.2  # lower precision must be this much faster to be worth what it loses


# A forked process has none of OpenMP's threads, and torch would wait for them for ever. Pipelines fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def pick(device: str | torch.device = "auto") -> torch.device:
    """`device`, or for "auto" the first there is of CUDA, MPS and CPU; ParameterError otherwise."""
    if device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if _there(name)))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        choices = ["auto", *(name for name in ("cuda", "mps", "cpu") if _there(name))]
        raise ParameterError(
            f"device {shown(device)} is unknown; {did_you_mean(str(device), choices)}", parameter="device"
        ) from None
    if not _there(chosen.type) or (
        chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()
    ):
        raise ParameterError(
            f"device {str(chosen)!r} is not on this machine; use device='auto'", parameter="device"
        )
    return chosen


def precision(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The dtype to compute in. None is what PICTURA_DTYPE says, and without it float32, in which a seed gives
    the same picture everywhere.

    "auto" is bfloat16 where that was measured to be faster, otherwise float32. ParameterError for others.
    """
    if dtype is None:
        dtype = os.environ.get("PICTURA_DTYPE") or torch.float32
    if dtype == "auto":
        rates = speed(device)
        return torch.bfloat16 if rates["bfloat16"] > _GAIN * rates["float32"] else torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ParameterError(
            f"dtype {shown(dtype)} is unknown; {did_you_mean(name, ['auto', *_DTYPES])}", parameter="dtype"
        )
    return _DTYPES[name]


def speed(device: torch.device, seconds: float = 0.05) -> dict[str, float]:
    """GFLOP/s of a linear layer of a transformer, (256, 1024) by (1024, 1024), by dtype; the best of several
    runs within about `seconds` for each."""
    return {name: _rate(device, _DTYPES[name], seconds) for name in ("float32", "bfloat16")}


def facts() -> Mapping[str, Any]:
    """What this machine has and what would be picked on it, for people to read."""
    device = pick()
    rates = speed(device)
    faster = rates["bfloat16"] > _GAIN * rates["float32"]
    return {
        "torch": torch.__version__,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gflops_float32": round(rates["float32"], 1),
        "gflops_bfloat16": round(rates["bfloat16"], 1),
        "dtype": "float32",
        "dtype_auto": "bfloat16" if faster else "float32",
        "why": f"bfloat16 ran at {rates['bfloat16'] / rates['float32']:.2f} times the speed of float32; "
        f"dtype='auto' takes it from {_GAIN} times on; float32, the default, keeps a seed's picture",
    }


def _there(kind: str) -> bool:
    if kind == "cuda":
        return torch.cuda.is_available()
    if kind == "mps":
        return torch.backends.mps.is_available()
    return kind == "cpu"


def _rate(device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    rows, width = 256, 1024
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    weight = torch.randn(width, width, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    best, until = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < until:
        started = time.perf_counter()
        product = torch.nn.functional.linear(x, weight)
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * rows * width * width / best / 1e9
