"""The template matcher on real renders: right where the caption is right, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from spoilt import blurred, noisy

from pictura.datasets.scenes.grammar import things
from pictura.datasets.scenes.render import render
from pictura.datasets.scenes.stream import Example, example
from pictura.evaluation.checkers.template import look
from pictura.evaluation.composition import judge

EXAMPLES = [example(i, split, basic=True) for split in ("validation", "held-out") for i in range(30)]


def half(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX))


@pytest.mark.parametrize("change", [np.asarray, noisy, blurred, half])
def test_sees_every_object_place_and_background(change: object) -> None:
    assert callable(change)
    for asked in EXAMPLES:
        sight = look(change(asked.image()))
        assert sorted((s.thing, s.x, s.y) for s in sight.things) == sorted(asked.scene.drawn()), asked.prompt
        assert sight.background == asked.scene.background


def test_every_sprite_is_told_from_all_others() -> None:
    single = next(e.scene for e in EXAMPLES if e.scene.kind == "single")
    for index in range(len(things())):
        sight = look(render(replace(single, objects=(index,), background="gray")))
        assert [s.thing for s in sight.things] == [index]


def wrong_captions(asked: Example) -> list[str]:
    other = next(e for e in EXAMPLES if e.scene.objects != asked.scene.objects)
    swap = {" left of ": " right of ", " right of ": " left of ", " above ": " below ", " below ": " above ",
            "two ": "three ", "three ": "four ", "four ": "two ", "a gray b": "a pink b"}
    return [other.prompt] + [asked.prompt.replace(a, b) for a, b in swap.items() if a in asked.prompt][:1]


def test_wrong_captions_are_refused() -> None:
    for asked in EXAMPLES:
        for prompt in wrong_captions(asked):
            assert not judge(asked.image(), prompt).exact, (asked.prompt, prompt)


def test_forms_that_are_no_object_are_refused() -> None:
    """Half of one sprite joined to half of another, and a smear, at a right place."""
    single = [e for e in EXAMPLES if e.scene.kind == "single" and e.scene.background != "white"]
    for one, other in zip(single, single[1:], strict=False):
        picture = np.where(np.arange(128)[:, None, None] < one.scene.places[0][1], one.image(), other.image())
        assert not judge(picture.astype(np.uint8), one.prompt).exact
        smear = np.asarray(one.image()).copy()
        smear[32:96, 32:96] = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
        assert not judge(smear, one.prompt).exact


def test_an_extra_object_is_not_exact() -> None:
    two = next(e for e in EXAMPLES if e.scene.kind == "count" and e.scene.number == 2)
    name = things()[two.scene.objects[0]].singular
    verdict = judge(two.image(), f"a {name}")
    assert verdict.identity == 1 and not verdict.exact


def test_verdict_says_which_part_is_wrong() -> None:
    asked = next(e for e in EXAMPLES if e.scene.relation == "left" and e.scene.told)
    verdict = judge(asked.image(), asked.prompt.replace("left of", "right of"))
    assert (verdict.identity, verdict.relation, verdict.background, verdict.count) == (1, False, True, None)
    verdict = judge(255 - asked.image(), asked.prompt)
    assert verdict.background is False and not verdict.exact


def test_a_picture_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="h, w, 3"):
        look(np.zeros((128, 128), np.uint8))
