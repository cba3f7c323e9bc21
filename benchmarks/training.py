"""Training samples a second and the share of it spent waiting for data, from the trainer's own log.

The built-in architecture and data, uncompiled, with one process and two; and the renderer alone.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from _common import arguments, in_turn, machine, seconds, spread, write

from pictura.datasets.scenes.stream import example
from pictura.training.recipe import Recipe, parse
from pictura.training.trainer import launch

SMALL = {"width": 64, "hidden": 96, "depth": 2, "text_depth": 1, "coefficients": 32}


def recipe(quick: bool, processes: int) -> Recipe:
    batch, steps = (8, 4) if quick else (48, 12)
    table: dict[str, Any] = {
        "family": "scenes",
        "data": "scenes",
        "samples": batch * steps,
        "batch": batch,
        "processes": processes,
        "log_every": steps // 2,  # the first half warms up; what counts is the second
        "architecture": SMALL if quick else {},
        "stages": [{"loss": {"dtype": "bfloat16"}}],
    }
    return parse(table)


def trained(quick: bool, processes: int) -> tuple[float, float]:
    """(samples a second, share of the time waiting for data) over the second half of a short run.

    The log's figures count from the start of the run, so the first half's are taken out.
    """
    with tempfile.TemporaryDirectory() as folder:
        plan = recipe(quick, processes)
        launch(plan, folder)
        lines = (Path(folder) / "log.jsonl").read_text("utf-8").splitlines()
    half, whole = (json.loads(line) for line in lines[-2:])
    times = [entry["samples"] / entry["samples_per_second"] for entry in (half, whole)]
    waits = [entry["waiting"] * time for entry, time in zip((half, whole), times, strict=True)]
    elapsed = times[1] - times[0]
    return (whole["samples"] - half["samples"]) / elapsed, (waits[1] - waits[0]) / elapsed


def main() -> None:
    options, before = arguments(__doc__ or ""), machine()
    runs, scenes = (1, 20) if options.quick else (3, 400)
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(runs):
        for processes in found:
            found[processes].append(trained(options.quick, processes))

    def draw() -> float:
        return scenes / seconds(lambda: [example(i).image() for i in range(scenes)])

    rendered = in_turn({"scenes": draw}, max(runs, 2))["scenes"]
    rates = {f"processes {n}": spread([rate for rate, _ in values], 2) for n, values in found.items()}
    results = {
        "batch": recipe(options.quick, 1).batch,
        "dtype": "bfloat16",
        "samples_per_second": rates,
        "waiting_share": {
            f"processes {n}": spread([wait for _, wait in values]) for n, values in found.items()
        },
        "two_processes_over_one": round(rates["processes 2"]["median"] / rates["processes 1"]["median"], 3),
        "rendered_scenes_per_second": spread(rendered, 1),
    }
    write("training", results, options, before)


if __name__ == "__main__":
    main()
