"""From a cold process: `pictura --help`, and a prompt to a PNG beside the smallest diffusers pipeline.

Both draw with 4 evaluations from a model on disk. Best of several runs, in seconds of wall clock and of CPU;
on a busy machine only the CPU times mean something.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THEIRS = """
import sys, torch
from diffusers import DDIMPipeline
pipeline = DDIMPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
pipeline(num_inference_steps=4).images[0].save(sys.argv[2])
"""
BUILD = """
import sys
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
unet = UNet2DModel(sample_size=32, block_out_channels=(32, 64), layers_per_block=1,
                   down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)
DDIMPipeline(unet=unet, scheduler=DDIMScheduler()).save_pretrained(sys.argv[1])
"""
MAIN = "import sys; from pictura.cli import main; sys.exit(main())"


def timed(command: list[str], runs: int) -> tuple[float, float]:
    """(wall, CPU) seconds of the fastest of `runs`."""
    best = (float("inf"), float("inf"))
    for _ in range(runs):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = (min(best[0], wall), min(best[1], cpu))
    return best


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        model, out = str(Path(folder, "tiny")), str(Path(folder, "a.png"))
        subprocess.run([sys.executable, "-c", BUILD, model], check=True, capture_output=True)
        order = [
            "generate",
            "a cat left of a pizza",
            "--seed",
            "7",
            "--steps",
            "4",
            "--out",
            out,
            "--overwrite",
        ]
        commands = {
            "pictura --help": [sys.executable, "-c", MAIN, "--help"],
            "pictura generate, scenes, 128 px": [sys.executable, "-c", MAIN, *order],
            "diffusers DDIMPipeline, 32 px": [sys.executable, "-c", THEIRS, model, out],
        }
        print("| from process start | wall, s | CPU, s |\n|---|---|---|")
        for name, command in commands.items():
            wall, cpu = timed(command, runs)
            print(f"| {name} | {wall:.2f} | {cpu:.2f} |", flush=True)


if __name__ == "__main__":
    main()
