"""From what people like to a model that draws it: synthetic people, who like pictures with more on them.

Asked for "cats", the built-in model draws two or one of them, as the seed wills; these people choose by the
area that is not background. Every step is a user's: pictures in the history, choices, the exported data set,
a reward model, reranking, tuning. What counts is measured on prompts that nobody judged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pictura
from pictura.datasets.scenes.grammar import article, things
from pictura.evaluation import reward
from pictura.evaluation.composition import judge
from pictura.history import History
from pictura.history.preferences import export_preferences
from pictura.training import recipe as recipes
from pictura.training import trainer
from pictura.training.examples import read

PLURALS = [thing.plural for thing in things()]
random.Random(0).shuffle(PLURALS)
HELD_OUT = PLURALS[200:]  # nobody judges these
STEPS = 4


def area(picture: Any) -> float:
    """Share of pixels unlike the background, which is the commonest colour along the border."""
    x = np.asarray(picture).astype(int)
    border = np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])
    return float((np.abs(x - np.median(border, 0)).max(-1) > 40).mean())


def drawn(model: Any, prompts: list[str], each: int, seed: int, **more: Any) -> list[Any]:
    asked = [prompt for prompt in prompts for _ in range(each)]
    return list(model.generate(asked, seed=seed, num_steps=STEPS, progress=False, **more))


@dataclass(frozen=True)
class Shift:
    """Area of the same prompts and seeds before and after."""

    before: np.ndarray
    after: np.ndarray

    @property
    def mean(self) -> float:
        return float((self.after - self.before).mean())

    @property
    def error(self) -> float:
        """Of the mean, one standard deviation."""
        return float((self.after - self.before).std(ddof=1) / np.sqrt(len(self.before)))

    def __str__(self) -> str:
        return f"{self.before.mean():.4f} to {self.after.mean():.4f}, {self.mean:+.4f} +- {self.error:.4f}"


def shift(before: list[Any], after: list[Any]) -> Shift:
    return Shift(np.array([area(p) for p in before]), np.array([area(p) for p in after]))


def judged(model: Any, prompts: list[str], folder: Path) -> Path:
    """Four pictures of each prompt, compared by people who like area, as a data set of preferences."""
    with History(folder=folder / "home") as history:
        pictures = drawn(model, prompts, 4, seed=1000)
        for at in range(0, len(pictures), 4):
            ranked = sorted(pictures[at : at + 4], key=area)
            entries = [history.add(picture) for picture in ranked]
            for better, worse in ((3, 0), (2, 1)):
                if area(ranked[better]) - area(ranked[worse]) > 0.02:
                    history.choose(entries[better].id, entries[worse].id)
        return export_preferences(history, folder / "preferences").folder


def agreement(liking: reward.Reward, pictures: list[Any]) -> tuple[int, int]:
    """Of neighbouring pictures that differ clearly in area: how many it ranks as people do, and all."""
    scores = liking(pictures)
    right = total = 0
    for at in range(0, len(pictures) - 1, 2):
        if abs(area(pictures[at]) - area(pictures[at + 1])) > 0.02:
            total += 1
            right += (area(pictures[at]) > area(pictures[at + 1])) == (scores[at] > scores[at + 1])
    return right, total


@pytest.mark.slow
def test_what_people_like_is_drawn_more_often_of_prompts_they_never_judged(tmp_path: Path) -> None:
    model = pictura.TextToImage.from_preset("scenes")
    folder = judged(model, PLURALS[:14], tmp_path)
    before = drawn(model, HELD_OUT[:12], 2, seed=5)

    liking = reward.train(read(folder, pairs=True))
    right, total = agreement(liking, before)
    assert right / total > 0.75, (right, total, liking.measured)

    model.compile(loss="dpo", learning_rate=5e-5)
    history = model.fit(folder, epochs=3, batch_size=8)
    assert history.history["loss"][-1] < history.history["loss"][0] < np.log(2) + 0.01
    moved = shift(before, drawn(model, HELD_OUT[:12], 2, seed=5))
    assert moved.mean > 0.01 and moved.mean > 2 * moved.error, str(moved)


@pytest.mark.slow
def test_the_whole_way_at_the_size_of_the_figures_in_the_documentation(tmp_path: Path) -> None:
    model = pictura.TextToImage.from_preset("scenes")
    folder = judged(model, PLURALS[:100], tmp_path)
    pairs = len(read(folder, pairs=True))
    before = drawn(model, HELD_OUT, 4, seed=5)

    liking = reward.train(read(folder, pairs=True))
    right, total = agreement(liking, before)
    print(f"reward model: {liking.measured}; of prompts nobody judged {right} of {total} pairs")
    assert right / total > 0.75 and liking.measured["95 % interval"][0] > 0.7
    chosen = shift(before[::4], drawn(model, HELD_OUT, 1, seed=5, best_of=4, scorer=liking))
    print(f"best of 4 by it: {chosen}")
    assert chosen.mean > 3 * chosen.error

    table = {
        "start": "scenes",
        "data": "folder",
        "samples": 8 * pairs,
        "batch": 16,
        "beta": 200,
        "ema": 0.9,
        "log_every": 1,
        "optimizer": {"lr": 3e-5, "warmup": 6},
        "stages": [{"data": {"path": str(folder), "pairs": True, "size": [128, 128]}}],
    }
    trainer.launch(recipes.parse(table), tmp_path / "run")
    tuned = pictura.TextToImage.from_preset(str(tmp_path / "run" / "preset"))
    moved = shift(before, drawn(tuned, HELD_OUT, 4, seed=5))
    print(f"tuned on {pairs} pairs: {moved} (n = {len(before)})")
    assert moved.mean > 5 * moved.error

    names = [thing for thing in things() if thing.plural in HELD_OUT]
    one = [f"{article(thing.singular)} {thing.singular}" for thing in names]
    for asked in (one, [f"two {thing.plural}" for thing in names]):
        exact = [
            sum(judge(p, p.request.prompt).exact for p in m.generate(asked, seed=9, num_steps=6))
            for m in (model, tuned)
        ]
        print(f"{asked[0]!r} and its like are right: {exact[0]} before, {exact[1]} after, of {len(asked)}")
        assert exact[1] > 0.85 * len(asked)
