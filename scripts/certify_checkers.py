"""Certify the scene checkers on real renders and write the figures into `docs/evaluation.md`.

    python scripts/certify_checkers.py --count 1000

Every checker sees the same renders of numbered scenes, clean and spoiled. A render counts as right when the
checker sees exactly its objects, their places and its background. Then it is asked about captions that are
wrong in one thing only, and shown pictures with a form that is made of two objects: it should accept none.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pictura.datasets.scenes.grammar import (
    CANVAS,
    COLOURS,
    NUMBERS,
    OBJECT,
    RELATIONS,
    Scene,
    caption,
    parse,
    things,
)
from pictura.datasets.scenes.render import render, sprites
from pictura.datasets.scenes.stream import Example, example
from pictura.evaluation import checkers
from pictura.evaluation.checkers import Checker
from pictura.evaluation.composition import verdict
from pictura.evaluation.intervals import wilson

Array = NDArray[np.uint8]
DOCUMENT = Path(__file__).parent.parent / "docs" / "evaluation.md"
BEGIN, END = "<!-- figures: written by scripts/certify_checkers.py -->", "<!-- end of figures -->"


def noise(level: float) -> Callable[[Array, np.random.Generator], Array]:
    return lambda image, rng: _bytes(image + rng.normal(0, level, image.shape))


def blur(image: Array, rng: np.random.Generator) -> Array:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5)))


def half(image: Array, rng: np.random.Generator) -> Array:
    return np.asarray(Image.fromarray(image).resize((CANVAS // 2, CANVAS // 2), Image.Resampling.BOX))


def colour(image: Array, rng: np.random.Generator) -> Array:
    return _bytes(image * rng.uniform(0.93, 1.03, 3) + rng.uniform(-5, 5, 3))


def shift(image: Array, rng: np.random.Generator) -> Array:
    """By up to 2 px each way; the frame is filled with the colour at the picture's edge."""
    dx, dy = rng.integers(-2, 3, 2)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), "edge")
    return padded[2 + dy : 2 + dy + CANVAS, 2 + dx : 2 + dx + CANVAS]


def _bytes(image: NDArray[np.float64]) -> Array:
    return image.round().clip(0, 255).astype(np.uint8)


SPOILED: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "clean": lambda image, rng: image,
    "noise of 12 levels": noise(12),
    "noise of 25 levels": noise(25),
    "blurred, radius 1.5 px": blur,
    "at 64 px": half,
    "colours off by up to 7 %": colour,
    "shifted by up to 2 px": shift,
}


def wrong_caption(scene: Scene, rng: random.Random) -> str:
    """The basic caption of a scene that differs from `scene` in one thing."""
    scene = replace(scene, told=True)
    changes = [replace(scene, background=rng.choice([c for c in COLOURS if c != scene.background]))]
    others = [o for o in range(len(things())) if o not in scene.objects]
    at = rng.randrange(len(scene.objects))
    objects = (*scene.objects[:at], rng.choice(others), *scene.objects[at + 1 :])
    changes.append(replace(scene, objects=objects))
    if scene.kind == "relation":
        changes.append(replace(scene, relation=rng.choice([r for r in RELATIONS if r != scene.relation])))
        changes.append(replace(scene, objects=scene.objects[::-1]))
    if scene.kind == "count":
        changes.append(replace(scene, number=rng.choice([n for n in NUMBERS if n != scene.number])))
    return caption(rng.choice(changes))


def malformed(drawn: Example, rng: np.random.Generator) -> Array:
    """The scene with one object replaced by halves of it and another, unless these look alike."""
    scene = drawn.scene
    thing, x, y = scene.drawn()[int(rng.integers(len(scene.places)))]
    one = sprites()[thing]
    while True:
        other = sprites()[int(rng.integers(len(things())))]
        first = np.arange(OBJECT) < OBJECT // 2
        mixed = np.where(first[:, None, None] if rng.random() < 0.5 else first[None, :, None], one, other)
        if max(_alike(mixed, one), _alike(mixed, other)) < 0.75:
            break
    top, left = y - OBJECT // 2, x - OBJECT // 2
    image = render(scene)
    area = image[top : top + OBJECT, left : left + OBJECT]
    behind = np.array(COLOURS[scene.background]) * (1 - mixed[..., 3:] / 255)
    area[:] = _bytes(behind + mixed[..., :3])
    return image


def _alike(a: Array, b: Array) -> float:
    x, y = (s[..., :3] - 128.0 * s[..., 3:] / 255 for s in (a, b))
    return float((x * y).sum() / (np.linalg.norm(x) * np.linalg.norm(y) + 1e-6))


def right(look: Checker, drawn: Example, image: Array) -> bool:
    sight = look(image)
    seen = sorted((-1 if s.thing is None else s.thing, s.x, s.y) for s in sight.things)
    return seen == sorted(drawn.scene.drawn()) and sight.background == drawn.scene.background


def figures(look: Checker, count: int) -> Iterator[tuple[str, str]]:
    """What was shown, and how the checker did."""
    shown = [example(i, "held-out" if i % 5 == 0 else "validation", basic=True) for i in range(count)]
    renders = [s.image() for s in shown]
    for title, spoil in SPOILED.items():
        rng = np.random.default_rng(0)
        good = sum(right(look, s, spoil(i, rng)) for s, i in zip(shown, renders, strict=True))
        yield title, _share(good, count)
    chance, rng = random.Random(0), np.random.default_rng(0)
    lies = [parse(wrong_caption(s.scene, chance)) for s in shown]
    accepted = sum(verdict(lie, look(i)).exact for lie, i in zip(lies, renders, strict=True))
    yield "wrong captions accepted", _share(accepted, count)
    accepted = sum(verdict(parse(s.prompt), look(malformed(s, rng))).exact for s in shown)
    yield "half of another object accepted", _share(accepted, count)


def _share(n: int, total: int) -> str:
    low, high = wilson(n, total)
    return f"{n} of {total} ({low:.1%} to {high:.1%})"


def table(text: str) -> dict[str, dict[str, str]]:
    """checker -> what was shown -> figure, from the table that this script wrote."""
    rows = [line.strip("|").split("|") for line in text.split("\n") if "|" in line]
    lines = [[cell.strip() for cell in row] for row in rows]
    if not lines:
        return {}
    return {name: {row[0]: row[at] for row in lines[2:]} for at, name in enumerate(lines[0]) if at}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--count", type=int, default=1000)
    arguments.add_argument("--only", choices=checkers.names(), help="keep the others' columns")
    given = arguments.parse_args()
    columns = {}
    for name in [given.only] if given.only else checkers.names():
        columns[name] = {}
        for title, figure in figures(checkers.checker_named(name), given.count):
            print(f"{name}: {title}: {figure}", flush=True)
            columns[name][title] = figure
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    columns = {**table(old), **columns}
    names = sorted(columns, reverse=True)
    head = [["seen exactly right", *names], ["---"] * (1 + len(names))]
    body = [[title, *(columns[name].get(title, "") for name in names)] for title in columns[names[0]]]
    lines = [f"| {' | '.join(row)} |" for row in head + body]
    DOCUMENT.write_text("\n".join([before + BEGIN, "", *lines, "", END]) + after)


if __name__ == "__main__":
    main()
