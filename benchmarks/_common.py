"""What every benchmark here shares: runs in turn, medians, facts about the machine, one JSON file each.

Two things are compared by running them in turn, A B A B ..., so that what else the machine does hits both
alike; a figure is the median with its least and greatest value, a claim is a ratio of two such medians.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_tile", "amx_bf16", "neon", "sve")
PACKAGES = ("torch", "numpy", "diffusers", "transformers", "onnxruntime")


def arguments(about: str, *, trains: bool = False) -> argparse.Namespace:
    """`--quick` takes the smallest settings that still run every line; `--out` is the folder of the JSON;
    `--models`, of those that train models, is where these are kept."""
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON result")
    if trains:
        parser.add_argument("--models", type=Path, help="folder that keeps the trained models; default: none")
    return parser.parse_args()


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """{"median", "min", "max", "runs"}"""
    return {
        "median": round(median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "runs": len(values),
    }


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def in_turn(calls: Mapping[str, Callable[[], float]], runs: int, warm: int = 1) -> dict[str, list[float]]:
    """What each call returned, `runs` times, A B C A B C ...; the first `warm` rounds are thrown away."""
    values: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm + runs):
        for name, call in calls.items():
            value = call()
            if turn >= warm:
                values[name].append(value)
    return values


def fresh(code: str, *args: str) -> float:
    """Seconds from start to end of a new Python process that runs `code`; it must end well."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = str(ROOT / "src")
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=environment, capture_output=True, text=True
    )
    elapsed = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"a measured process failed:\n{done.stderr[-3000:]}")
    return elapsed


def machine() -> dict[str, Any]:
    """What a reader needs to judge the figures: processor, cores we may use, load, versions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    has = set((info.get("flags") or info.get("Features") or "").split())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "cores": cores,
        "flags": [flag for flag in FLAGS if flag in has],
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }


def write(
    name: str, results: Mapping[str, Any], options: argparse.Namespace, before: Mapping[str, Any]
) -> None:
    """`NAME.json`: {"name", "quick", "machine" as it was before the first run, "results"}."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.json"
    content = {"name": name, "quick": options.quick, "machine": before, "results": results}
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(json.dumps(results, indent=1))
    print(f"written to {path}")
