"""Preferences: which pairs choices and stars give, and the folder that other libraries read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pictura.errors import FileError, InputError, ParameterError
from pictura.history.preferences import export_preferences, pairs


@pytest.fixture
def cats(history, picture):
    """Entries of six pictures of one prompt."""
    return [history.add(picture("a cat", seed=seed)) for seed in range(6)]


def said(history, **options):
    return [
        (p.winner.request.seed, p.loser.request.seed, p.source, p.votes) for p in pairs(history, **options)
    ]


def test_choices_are_pairs_with_their_votes_and_both_sides_of_a_quarrel(history, cats):
    for winner, loser in [(0, 1), (0, 1), (1, 0), (2, 3)]:
        history.choose(cats[winner].id, cats[loser].id)
    assert said(history) == [(0, 1, "choice", 2), (1, 0, "choice", 1), (2, 3, "choice", 1)]


def test_stars_are_pairs_where_they_differ_and_nobody_compared(history, cats):
    for entry, stars in zip(cats, (5, 1, 5, 3, 2), strict=False):
        history.rate(entry.id, stars=stars)
    history.rate(cats[4].id, stars=1)  # the last word counts
    history.choose(cats[1].id, cats[0].id)  # two pictures that were compared need no stars
    expected = {(0, 3), (0, 4), (2, 1), (2, 3), (2, 4), (3, 1), (3, 4)}
    found = said(history)
    assert found[0] == (1, 0, "choice", 1)
    assert {pair[:2] for pair in found[1:]} == expected and {pair[2] for pair in found[1:]} == {"stars"}
    assert {pair[:2] for pair in said(history, min_margin=3)[1:]} == {(0, 4), (2, 1), (2, 4)}
    few = said(history, per_prompt=2)
    assert len(few) == 3 and few == said(history, per_prompt=2) and set(few) <= set(found)


def test_stars_that_were_withdrawn_say_nothing(history, cats):
    for entry, stars in zip(cats, (5, 1, 3), strict=False):
        history.rate(entry.id, stars=stars)
    history.rate(cats[0].id, stars=0)
    assert said(history) == [(2, 1, "stars", 1)]
    history.rate(cats[2].id, stars=0)
    assert said(history) == []
    history.rate(cats[0].id, stars=2)
    assert said(history) == [(0, 1, "stars", 1)]


def test_pictures_of_other_prompts_and_twins_are_no_pairs(history, cats, picture, tmp_path):
    dog, twin = history.add(picture("a dog")), history.add(picture("a cat", seed=0))
    history.choose(cats[0].id, dog.id)
    history.choose(cats[0].id, twin.id)
    history.rate(dog.id, stars=1)
    history.rate(cats[0].id, stars=5)
    history.rate(twin.id, stars=1)
    assert said(history) == []
    with pytest.raises(InputError, match="no preferences; 2 choices"):
        export_preferences(history, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_folder_is_a_data_set_of_the_datasets_library(history, cats, picture, tmp_path):
    import datasets

    history.choose(cats[0].id, cats[1].id)
    history.choose(cats[0].id, history.add(picture("a dog")).id)
    history.rate(cats[2].id, stars=4)
    history.rate(cats[0].id, stars=2)
    done = export_preferences(history, tmp_path / "out")
    assert (done.choices, done.stars, done.prompts, done.pictures, done.left_out) == (1, 1, 1, 3, 1)
    rows = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows["source"] == ["choice", "stars"] and rows["prompt"] == ["a cat"] * 2
    for row, (winner, loser) in zip(rows, ((0, 1), (2, 0)), strict=True):
        for name, entry in (("winner", cats[winner]), ("loser", cats[loser])):
            np.testing.assert_array_equal(np.asarray(row[name]), np.asarray(entry.picture()))
            assert row[f"{name}_id"] == entry.id and row[f"{name}_model_digest"] == "0" * 64
            assert json.loads(row[f"{name}_request"])["seed"] == entry.request.seed


def test_nothing_is_overwritten_and_nothing_half_written(history, cats, tmp_path):
    history.choose(cats[0].id, cats[1].id)
    out = tmp_path / "out"
    export_preferences(history, out)
    with pytest.raises(FileError, match="exists already"):
        export_preferences(history, out)
    cats[1].path.unlink()
    with pytest.raises(FileError, match="missing"):
        export_preferences(history, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out"]
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("bad", [{"min_margin": 0}, {"min_margin": 5}, {"per_prompt": True}])
def test_what_cannot_be_is_refused(history, bad):
    with pytest.raises(ParameterError, match=next(iter(bad))):
        list(pairs(history, **bad))
