"""Sixteen requests with different samplers, steps, guidance and seeds: one at a time, and all at once.

Prints pictures a second, and checks that every picture has the same bits either way.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import pictura

PROMPTS = (
    "a cat left of a pizza",
    "three stars",
    "a rocket on a yellow background",
    "an owl above a pine tree",
)
MIX = (("euler", 6, 1.0), ("heun", 4, 3.0), ("ddim", 8, 2.0), ("dpmpp_2m", 5, 4.0))


def main() -> None:
    model = pictura.TextToImage.from_preset(sys.argv[1] if len(sys.argv) > 1 else "scenes")
    requests = [
        pictura.Request(prompt=prompt, seed=at, sampler=sampler, num_steps=steps, guidance_scale=scale)
        for at, (prompt, (sampler, steps, scale)) in enumerate((p, m) for p in PROMPTS for m in MIX)
    ]
    model.generate(requests[0])  # loads and warms everything up
    ways = {
        "one at a time": lambda: [model.generate(request) for request in requests],
        "all at once": lambda: list(model.generate(requests, batch_size=len(requests))),
    }
    print("| 16 mixed requests | pictures/s |\n|---|---|")
    made = {}
    for name, way in ways.items():
        start = time.perf_counter()
        made[name] = way()
        print(f"| {name} | {len(requests) / (time.perf_counter() - start):.2f} |", flush=True)
    alone, together = (np.stack([np.asarray(picture) for picture in some]) for some in made.values())
    print(f"\nvalues that differ: {np.count_nonzero(alone != together)} of {alone.size}")


if __name__ == "__main__":
    main()
