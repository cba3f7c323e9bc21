"""Train the detector that checks scenes (`pictura.evaluation.checkers.detector`) and write its weights.

    python scripts/train_detector.py --out src/pictura/evaluation/checkers/detector.safetensors

One thread: 128 000 pictures, nine minutes at the 250 a second of an idle core; the shipped weights took 28
on a busy one. It learns from pictures made on the spot: one to four objects on any aligned places (not only
those of captions), shifted by up to 3 px, some of them forms made of two objects, with noise, blur and colour
errors; backgrounds are one of the eight colours or any other.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch.nn import functional as F

from pictura.datasets.scenes.grammar import CANVAS, COLOURS, OBJECT, PATCH
from pictura.datasets.scenes.render import sprites
from pictura.evaluation.checkers.detector import NEITHER, Detector, as_input

CENTRES = range(OBJECT // 2, CANVAS - OBJECT // 2 + 1, PATCH)
CORNERS = [(x, y) for x in (CENTRES[0], CENTRES[-1]) for y in (CENTRES[0], CENTRES[-1])]
EMPTY = -1


@dataclass(frozen=True)
class Lesson:
    image: NDArray[np.uint8]  # (64, 64, 3)
    grid: NDArray[np.int64]  # (8, 8): object centred there, NEITHER, or EMPTY
    colour: int


def lessons(seed: int) -> Iterator[Lesson]:
    rng = np.random.default_rng(seed)
    nominal = np.array(list(COLOURS.values()), np.float32)
    while True:
        colour = int(rng.integers(len(nominal) + (rng.random() < 0.3)))
        if colour < len(nominal):
            behind = nominal[colour] + rng.normal(0, 3, 3)
        else:
            behind = rng.uniform(0, 255, 3)
            if np.linalg.norm(nominal - behind, axis=1).min() < 60:
                continue
        canvas = np.empty((CANVAS, CANVAS, 3), np.float32)
        canvas[:] = behind
        grid = np.full((CANVAS // PATCH, CANVAS // PATCH), EMPTY, np.int64)
        full = rng.random() < 0.15  # four of a kind leave little of the background
        same = int(rng.integers(240)) if full or rng.random() < 0.2 else None
        for x, y in CORNERS if full else places(rng):
            thing, sprite = form(rng, same)
            dx, dy = rng.integers(-3, 4, 2) if rng.random() < 0.5 else (0, 0)
            paste(canvas, sprite, x + dx - OBJECT // 2, y + dy - OBJECT // 2)
            grid[y // PATCH, x // PATCH] = thing
        yield Lesson(spoil(rng, canvas), grid, colour)


def places(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Up to one to four centres whose objects do not overlap."""
    wanted, kept = int(rng.integers(1, 5)), []
    for _ in range(20):
        x, y = (int(rng.choice(CENTRES)) for _ in range(2))
        if all(abs(x - u) >= OBJECT or abs(y - v) >= OBJECT for u, v in kept):
            kept.append((x, y))
        if len(kept) == wanted:
            break
    return kept


def form(rng: np.random.Generator, same: int | None) -> tuple[int, NDArray[np.float32]]:
    """An object, or in 1 of 7 cases two objects in one: halves joined, or both at half strength."""
    atlas = sprites()
    thing = same if same is not None else int(rng.integers(240))
    one = atlas[thing].astype(np.float32)
    if rng.random() > 1 / 7:
        return thing, one
    other = atlas[(thing + int(rng.integers(1, 240))) % 240].astype(np.float32)
    if rng.random() < 0.3:
        both = (one + other) / 2
    else:
        first = np.arange(OBJECT) < OBJECT // 2 + rng.integers(-8, 9)
        both = np.where(first[:, None, None] if rng.random() < 0.5 else first[None, :, None], one, other)
    alike = max(cosine(both, one), cosine(both, other))
    return (NEITHER, both) if alike < 0.9 else (thing, one)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Of two sprites over mid gray."""
    a, b = (s[..., :3] - 128 * s[..., 3:] / 255 for s in (a, b))
    return float((a * b).sum() / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-6))


def paste(canvas: NDArray[np.float32], sprite: NDArray[np.float32], left: int, top: int) -> None:
    l0, t0 = max(left, 0), max(top, 0)
    part = canvas[t0 : top + OBJECT, l0 : left + OBJECT]
    cut = sprite[t0 - top :, l0 - left :][: part.shape[0], : part.shape[1]]
    part[:] = part * (1 - cut[..., 3:] / 255) + cut[..., :3]


def spoil(rng: np.random.Generator, canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    """64 px, with a colour error, blur and noise, each in half of the pictures."""
    picture = canvas.reshape(64, 2, 64, 2, 3).mean((1, 3))
    if rng.random() < 0.5:
        picture = picture * rng.uniform(0.92, 1.05, 3) + rng.uniform(-6, 6, 3)
    if rng.random() < 0.5:
        k = rng.uniform(0, 0.3)  # weight of each neighbour, in both directions
        for axis in (0, 1):
            padded = np.pad(picture, [(1, 1) if a == axis else (0, 0) for a in range(3)], "edge")
            before, after = np.split(padded, [2], axis)[1], np.split(padded, [picture.shape[axis]], axis)[0]
            picture = (picture + k * (before + after)) / (1 + 2 * k)
    if rng.random() < 0.5:
        picture = picture + rng.normal(0, rng.uniform(0, 20), picture.shape)
    return picture.round().clip(0, 255).astype(np.uint8)


def train(net: Detector, steps: int, batch: int, seed: int, rate: float, report: int) -> Detector:
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.15)
    source, began = lessons(seed), time.perf_counter()
    for step in range(1, steps + 1):
        taken = [next(source) for _ in range(batch)]
        pictures = as_input(np.stack([t.image for t in taken])).to(memory_format=torch.channels_last)
        grid = torch.from_numpy(np.stack([t.grid for t in taken]))
        colours = torch.tensor([t.colour for t in taken])
        centre, thing, colour = net(pictures)
        there = grid != EMPTY
        of_centre = F.binary_cross_entropy_with_logits(centre, there.float())
        of_thing = F.cross_entropy(thing.permute(0, 2, 3, 1)[there], grid[there])
        of_colour = F.cross_entropy(colour, colours)
        optimizer.zero_grad(set_to_none=True)
        (10 * of_centre + of_thing + of_colour).backward()
        optimizer.step()
        schedule.step()
        if step % report == 0:
            right = (thing.permute(0, 2, 3, 1)[there].argmax(-1) == grid[there]).float().mean()
            print(f"step {step}: centre {of_centre:.4f} object {of_thing:.3f} ({right:.0%} right) "
                  f"colour {of_colour:.3f}, {step * batch / (time.perf_counter() - began):.0f} pictures/s",
                  flush=True)
    return net.eval()


def write(net: Detector, out: Path) -> None:
    stored = {k: v for k, v in net.state_dict().items() if v.is_floating_point()}
    weights = {k: v.to(torch.bfloat16).contiguous() for k, v in stored.items()}
    part = out.with_name(f".{out.name}.{os.getpid()}")
    part.write_bytes(save(weights, {"source": "scripts/train_detector.py"}))
    os.replace(part, out)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--steps", type=int, default=2000)
    arguments.add_argument("--batch", type=int, default=64)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--rate", type=float, default=4e-3, help="highest learning rate")
    arguments.add_argument("--start", type=Path, help="weights to go on from")
    arguments.add_argument("--report", type=int, default=50, help="steps between lines of progress")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    net = Detector()
    if given.start is not None:
        stored = load_file(given.start)
        net.load_state_dict({name: value.float() for name, value in stored.items()}, strict=False)
    net = train(net, given.steps, given.batch, given.seed, given.rate, given.report)
    write(net, given.out)
    print(f"{sum(p.numel() for p in net.parameters()):,} parameters, {given.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
