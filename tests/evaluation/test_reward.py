"""The reward model: its optimum against scipy and a closed form, what it learns, its folder, reranking."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize
from scipy.special import expit, xlogy

from pictura import CheckpointError, FileError, InputError, ParameterError, TextToImage
from pictura.evaluation import reward
from pictura.evaluation.reward import fitting
from pictura.evaluation.reward.features import LOOKS, WORDS, looks, words
from pictura.evaluation.scorers import scorer_named
from pictura.picture import Picture
from pictura.request import Request

Rows = list[dict[str, Any]]


def fake(count: int, seed: int = 0, informative: int = 6) -> fitting.Pairs:
    """Pairs whose features are random numbers and whose winners were drawn by Bradley and Terry's rule."""
    rng = np.random.default_rng(seed)
    one, other = (rng.normal(size=(count, LOOKS)) * 3 + 1 for _ in range(2))
    one[:, informative:] = other[:, informative:] = 1.0  # says nothing
    true = np.zeros(LOOKS)
    true[:informative] = rng.normal(size=informative) / 3
    first = rng.random(count) < expit((one - other) @ true)
    return fitting.Pairs(
        winner=np.where(first[:, None], one, other),
        loser=np.where(first[:, None], other, one),
        words=words([f"word{i % 7}" for i in range(count)]),
        votes=rng.integers(1, 4, count).astype(float),
        group=np.arange(count) % 7,
    )


def test_the_optimum_is_scipys() -> None:
    pairs, prior = fake(80), 2.0
    both = np.concatenate([pairs.winner, pairs.loser])[:, :6]
    apart = (pairs.winner - pairs.loser)[:, :6] / both.std(0)

    def objective(w: Any) -> Any:
        return (pairs.votes * -np.log(expit(apart @ w))).sum() + prior / 2 * (w**2).sum()

    expected = minimize(objective, np.zeros(6), method="BFGS", options={"gtol": 1e-9}).x
    model = fitting.fit(pairs, prior, 0)
    np.testing.assert_allclose(model.linear[:6], expected, atol=1e-5)
    np.testing.assert_array_equal(model.linear[6:], 0)
    margins = model.of(pairs.winner, pairs.words) - model.of(pairs.loser, pairs.words)
    np.testing.assert_allclose(margins, apart @ expected, atol=1e-4)


def test_one_feature_gives_the_log_odds() -> None:
    """30 of 40 like the picture with the larger number: the margin is log(30 / 10)."""
    pairs = replace(fake(40), votes=np.ones(40))
    for side in (pairs.winner, pairs.loser):
        side[:] = 1.0
    pairs.winner[:30, 2] = 2.0
    pairs.loser[30:, 2] = 2.0
    model = fitting.fit(pairs, 1e-9, 0)
    margin = model.of(pairs.winner[:1], pairs.words[:1]) - model.of(pairs.loser[:1], pairs.words[:1])
    assert margin[0] == pytest.approx(np.log(3), rel=1e-5)
    doubled = fitting.fit(replace(pairs, votes=np.where(np.arange(40) < 30, 2.0, 1.0)), 1e-9, 0)
    margin = doubled.of(pairs.winner[:1], pairs.words[:1]) - doubled.of(pairs.loser[:1], pairs.words[:1])
    assert margin[0] == pytest.approx(np.log(6), rel=1e-5)


def test_the_loss_with_words_is_its_formula() -> None:
    rng = np.random.default_rng(3)
    apart, said, votes = rng.normal(size=(5, LOOKS)), rng.normal(size=(5, WORDS)), rng.random(5)
    w, a, b = rng.normal(size=LOOKS) / 9, rng.normal(size=(2, LOOKS)) / 9, rng.normal(size=(2, WORDS)) / 9
    tensors = [torch.from_numpy(value) for value in (w, a, b)]
    found = fitting.loss(*map(torch.from_numpy, (apart, said, votes)), tensors, 0.7)
    margin = [
        x @ w + sum((a[r] @ x) * (b[r] @ q) for r in range(2)) for x, q in zip(apart, said, strict=True)
    ]
    expected = -xlogy(votes, expit(margin)).sum() + 0.35 * sum((v**2).sum() for v in (w, a, b))
    assert float(found) == pytest.approx(expected, rel=1e-9)


def gray(level: int, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray((level + rng.integers(-9, 10, (20, 30, 3))).clip(0, 255).astype(np.uint8))


def judged(better: Callable[[str, int, int], bool], count: int = 120) -> Rows:
    """Pairs of gray pictures for prompts of three words."""
    rng, rows = np.random.default_rng(1), []
    for at in range(count):
        prompt = f"{('night', 'day')[at % 2]} number {at % 30}"
        one, other = (int(level) for level in rng.integers(20, 230, 2))
        if not better(prompt, one, other):
            one, other = other, one
        rows.append({"images": gray(one, rng), "losers": gray(other, rng), "prompts": prompt})
    return rows


def test_it_learns_what_is_liked_whatever_the_prompt() -> None:
    model = reward.train(judged(lambda prompt, one, other: one > other))
    assert model.measured["held-out accuracy"] > 0.9 and model.measured["95 % interval"][0] > 0.8
    assert model.measured["pairs"] == 120 and model.measured["prompts"] == 30
    rng = np.random.default_rng(2)
    dark, light = (np.asarray(gray(level, rng)) for level in (60, 190))
    low, high = model.score([dark, light], ["unheard of"] * 2)
    assert high > low + 1


def test_it_learns_what_is_liked_for_some_words_only() -> None:
    model = reward.train(judged(lambda prompt, one, other: (one > other) == prompt.startswith("day"), 240))
    assert model.measured["held-out accuracy"] > 0.8 and model.measured["rank"] > 0
    rng = np.random.default_rng(2)
    dark, light = (np.asarray(gray(level, rng)) for level in (60, 190))
    for prompt, sign in (("day number 77", 1), ("night number 77", -1)):
        low, high = model.score([dark, light], [prompt] * 2)
        assert sign * (high - low) > 0


def test_where_nothing_is_to_be_learnt_it_says_so() -> None:
    rng = np.random.default_rng(7)
    model = reward.train(judged(lambda *_: bool(rng.random() < 0.5)))
    assert model.measured["held-out accuracy"] < 0.62 and model.measured["prior"] >= 100
    with pytest.raises(InputError, match="7 pairs, too few"):
        reward.train(judged(lambda *_: True, 7))
    with pytest.raises(ParameterError, match="votes"):
        reward.train([{**row, "votes": 0} for row in judged(lambda *_: True, 8)])


def test_features_see_picture_and_prompt() -> None:
    from pictura.datasets.scenes.stream import example

    scene = example(0, basic=True)
    other = next(e for e in map(example, range(1, 9)) if e.scene.kind != scene.scene.kind)
    wide = np.asarray(Image.fromarray(scene.image()).resize((256, 128)))
    seen = looks([scene.image(), scene.image(), wide], [scene.prompt, other.prompt, "no scene at all"])
    assert seen.shape == (3, LOOKS) and seen[2, -2] == pytest.approx(np.log(2))
    assert seen[0, -1] > seen[1, -1] + 5 and seen[2, -1] == 0  # shows its own caption, not another's
    np.testing.assert_array_equal(seen[0, :-1], seen[1, :-1])
    red = np.full((9, 7, 3), (255, 0, 0), np.uint8)
    # Of one colour: opponents are 255 and 127.5, no spread, no edges.
    expected = [1, 0, 0, 0, 0, 0, 0.3 * np.hypot(1, 0.5), np.log(1e-3)]
    np.testing.assert_allclose(looks([red], ["a"])[0, -10:-2], expected, atol=1e-12)
    said = words(["a red cat", "A red  cat!", "cat red a", ""])
    np.testing.assert_array_equal(said[0], said[1])
    assert not np.array_equal(said[0], said[2]) and not said[3].any()
    assert np.linalg.norm(said[0]) == pytest.approx(1)


def test_its_folder_holds_all_of_it_and_scores_by_name(tmp_path: Path) -> None:
    model = reward.train(judged(lambda prompt, one, other: (one > other) == prompt.startswith("day")))
    model.save(tmp_path / "liking")
    with pytest.raises(FileError, match="exists already"):
        model.save(tmp_path / "liking")
    again = scorer_named(str(tmp_path / "liking"))
    rng = np.random.default_rng(4)
    pictures = [
        Picture(image=gray(level, rng), request=Request(prompt=f"day number {level}", seed=1))
        for level in (30, 90, 200)
    ]
    assert list(again(pictures)) == model(pictures)
    card = (tmp_path / "liking" / "README.md").read_text()
    assert f"held-out accuracy: {model.measured['held-out accuracy']}" in card


def test_hostile_folders_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "liking"
    reward.train(judged(lambda prompt, one, other: one > other, 20)).save(folder)
    weights, config = (
        load_file(folder / "model.safetensors"),
        json.loads((folder / "config.json").read_text()),
    )

    def refused(match: str, *, tensors: Any = weights, said: Any = config) -> None:
        (folder / "config.json").write_text(json.dumps(said))
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=match):
            scorer_named(str(folder))

    refused("has shape", tensors={**weights, "mean": np.zeros(3)})
    refused("no part", tensors={**weights, "more": np.zeros(3)})
    refused("is missing", tensors={name: value for name, value in weights.items() if name != "linear"})
    refused("no sense", tensors={**weights, "linear": np.full(LOOKS, np.nan)})
    refused("no sense", tensors={**weights, "scale": np.zeros(LOOKS)})
    refused("version 9", said={**config, "version": 9})
    refused("rank", said={**config, "rank": 10**9})
    refused("measured", said={**config, "measured": 3})
    with pytest.raises(ParameterError, match="did you mean 'scene_detector'"):
        scorer_named("scene_detectr")
    with pytest.raises(FileError):
        scorer_named(str(tmp_path / "nowhere"))


def test_the_best_of_several_is_what_it_likes(tmp_path: Path) -> None:
    """Reranking by name and by object, and as a metric of an evaluation."""
    model = TextToImage.from_preset("toy")
    drawn = model.generate(["square"] * 40, seed=1)

    def redness(picture: Any) -> float:
        pixels = np.asarray(picture).astype(float)
        return float((pixels[..., 0] - pixels[..., 2]).mean())

    rows = []
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):
        better, worse = sorted((one, other), key=redness, reverse=True)
        rows.append({"images": better, "losers": worse, "prompts": "square"})
    liking = reward.train(rows)
    liking.save(tmp_path / "liking")
    plain = model.generate(["square"] * 8, seed=1000)
    best = model.generate(["square"] * 8, seed=1000, best_of=6, scorer=str(tmp_path / "liking"))
    assert np.mean([redness(p) for p in best]) > np.mean([redness(p) for p in plain]) + 3
    same = model.generate(["square"] * 8, seed=1000, best_of=6, scorer=liking)
    assert [p.request.seed for p in same] == [p.request.seed for p in best]
