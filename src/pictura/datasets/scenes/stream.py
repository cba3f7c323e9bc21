"""The scenes of a split, numbered: example `index` is the same on every machine and in every process."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from .grammar import Scene, caption, captions, sample
from .render import Array, render

SPLITS = ("train", "validation", "held-out")


@dataclass(frozen=True, slots=True)
class Example:
    """A numbered scene and one way to tell it."""

    index: int
    scene: Scene
    prompt: str

    def image(self) -> Array:
        """(128, 128, 3) uint8."""
        return render(self.scene)


def example(index: int, split: str = "train", *, fixed_places: bool = False, basic: bool = False) -> Example:
    """Scene number `index` (0..) of `split`. Its caption is the basic one in 6 of 10 cases and any other
    phrasing in the rest; `basic` keeps to the basic one."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; use one of {', '.join(SPLITS)}")
    seed = hashlib.sha256(f"scenes|{split}|{index}".encode()).digest()[:8]
    rng = random.Random(int.from_bytes(seed, "big"))
    scene = sample(rng, split, fixed_places=fixed_places)
    told = caption(scene) if basic or rng.random() < 0.6 else rng.choice(captions(scene))
    return Example(index, scene, told)


def examples(start: int, count: int, split: str = "train", *, basic: bool = False) -> Iterator[Example]:
    """Scenes number `start` to `start + count - 1` of `split`, one at a time."""
    for index in range(start, start + count):
        yield example(index, split, basic=basic)
