"""Batches: pictures a second beside a plain loop over diffusers and beside distilabel, and on Ray actors.

The rates are of the built-in model with few steps, so that what the batch adds counts; files are fsynced.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from _common import ROOT, arguments, in_turn, machine, spread, write

STEPS = 4
OURS, ALONE = "pictura batch", "the model alone, nothing stored"
PROMPTS = [f"a {thing} on a {colour} background" for thing in ("cat", "rocket", "pizza", "owl") for colour in
           ("red", "green", "blue", "yellow")]  # fmt: skip


def rates(count: int, runs: int, folder: Path, threads: int) -> dict[str, list[float]]:
    """Pictures a second with so many threads, the ways in turn."""
    import torch
    from diffusers import StableDiffusionPipeline
    from startup import save_pipeline

    from pictura import TextToImage, batch

    torch.set_num_threads(threads)
    save_pipeline(folder)
    pipeline = StableDiffusionPipeline.from_pretrained(str(folder / "pipeline"))
    pipeline.set_progress_bar_config(disable=True)
    model = TextToImage.from_preset("scenes", history=False)
    tiny = TextToImage.from_preset(folder / "pipeline", history=False)
    prompts = [PROMPTS[at % len(PROMPTS)] for at in range(count)]
    number = 0

    def fresh() -> Path:
        nonlocal number
        number += 1
        return folder / f"out-{threads}-{number}"

    def ours(network: TextToImage) -> float:
        started = time.perf_counter()
        done = batch.run(prompts, fresh(), model=network, seed=1, num_steps=STEPS, size=(128, 128))
        assert done.kept == count, done
        return count / (time.perf_counter() - started)

    def bare() -> float:
        started = time.perf_counter()
        sum(1 for event in model.stream(prompts, seed=1, num_steps=STEPS))
        return count / (time.perf_counter() - started)

    def loop() -> float:
        out = fresh()
        out.mkdir()
        started = time.perf_counter()
        for at, prompt in enumerate(prompts):
            rng = torch.Generator().manual_seed(1 + at)
            picture = pipeline(prompt, height=128, width=128, num_inference_steps=STEPS, generator=rng)
            picture.images[0].save(out / f"{at:08d}.png")
        return count / (time.perf_counter() - started)

    ways: dict[str, Callable[[], float]] = {
        OURS: partial(ours, model),
        ALONE: bare,
        "pictura batch, diffusers' tiny pipeline": partial(ours, tiny),
        "loop over diffusers, the same pipeline": loop,
    }
    return in_turn(ways, runs)


DISTILABEL = """
import sys, time
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from pictura.integrations.distilabel import ImageGeneration, PicturaImageGeneration
prompts, steps = sys.argv[2:], int(sys.argv[1])
if __name__ == "__main__":
    with Pipeline("peer") as pipeline:
        load = LoadDataFromDicts(data=[{"prompt": prompt} for prompt in prompts], batch_size=16)
        draw = ImageGeneration(
            image_generation_model=PicturaImageGeneration(model="scenes", seed=1, num_steps=steps),
            input_batch_size=16,
        )
        load >> draw
    started = time.perf_counter()
    rows = pipeline.run(use_cache=False)["default"]["train"]
    elapsed = time.perf_counter() - started
    assert len(rows) == len(prompts) and all(rows["image"]), rows
    print("seconds", elapsed)
"""
BATCH = """
import sys, time
from pictura import batch
started = time.perf_counter()
batch.run(sys.argv[3:], sys.argv[1], model="scenes", seed=1, num_steps=int(sys.argv[2]))
print("seconds", time.perf_counter() - started)
"""


def whole_runs(count: int, runs: int, folder: Path) -> dict[str, list[float]]:
    """Seconds of a whole run in a process of its own, loading the model included: ours and distilabel's."""
    prompts = [PROMPTS[at % len(PROMPTS)] for at in range(count)]
    script = folder / "peer.py"
    script.write_text(DISTILABEL)
    number = 0

    def timed(*command: str) -> float:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "src"),
            "HF_HUB_OFFLINE": "1",
        }
        done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("seconds ")]
        if done.returncode or not lines:
            raise SystemExit(f"a measured process failed:\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
        return float(lines[0].split()[1])

    def ours() -> float:
        nonlocal number
        number += 1
        return timed("-c", BATCH, str(folder / f"whole-{number}"), str(STEPS), *prompts)

    theirs = partial(timed, str(script), str(STEPS), *prompts)
    return in_turn({"pictura batch": ours, "distilabel": theirs}, runs, 0)


RAY = """
import os, sys, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from pictura import batch
out, actors, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ray.init(address="local", num_cpus=actors, include_dashboard=False, object_store_memory=80 << 20,
         log_to_driver=False)
first = None
for progress in batch.follow(sys.argv[4:], out, model="scenes", seed=1, num_steps=steps, engine="ray",
                             actors=actors, batch_size=8):
    now = time.perf_counter()
    if first is None and progress.made:
        first = now, progress.made
    last = now, progress.made
print("rate", (last[1] - first[1]) / (last[0] - first[0]))
"""


def on_ray(count: int, runs: int, folder: Path) -> dict[str, list[float]]:
    """Pictures a second on 1, 2 and 4 actors, from the first picture on, so that starting is left out."""
    prompts = [PROMPTS[at % len(PROMPTS)] for at in range(count)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    number = 0

    def timed(actors: int) -> float:
        nonlocal number
        number += 1
        command = [
            sys.executable,
            "-c",
            RAY,
            str(folder / f"ray-{number}"),
            str(actors),
            str(STEPS),
            *prompts,
        ]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"a measured process failed:\n{done.stderr[-3000:]}")
        return float(done.stdout.split()[-1])

    return in_turn({str(actors): partial(timed, actors) for actors in (1, 2, 4)}, runs, 0)


def main() -> None:
    options: argparse.Namespace = arguments(__doc__ or "")
    before = machine()
    count, runs = (12, 1) if options.quick else (96, 3)
    with tempfile.TemporaryDirectory(dir=os.environ.get("PICTURA_BENCH_DIR")) as name:
        folder = Path(name)
        found = {
            str(threads): {key: spread(v, 2) for key, v in rates(count, runs, folder, threads).items()}
            for threads in sorted({1, len(os.sched_getaffinity(0))})
        }
        whole = {key: spread(values, 2) for key, values in whole_runs(count, runs, folder).items()}
        on_actors = {key: spread(values, 2) for key, values in on_ray(count * 4, runs, folder).items()}
        results = {
            "steps": STEPS,
            "pictures": count,
            "pictures_on_ray": count * 4,
            "pictures_per_second": found,
            "of_the_model": {
                threads: round(rate[OURS]["median"] / rate[ALONE]["median"], 3)
                for threads, rate in found.items()
            },
            "whole_run_seconds": whole,
            "times_distilabel": round(whole["distilabel"]["median"] / whole["pictura batch"]["median"], 2),
            "ray_pictures_per_second": on_actors,
        }
    write("batch", results, options, before)


if __name__ == "__main__":
    main()
