"""The trained detector on real renders, and as the scorer that picks the best of several."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from spoilt import blurred, noisy

from pictura.datasets.scenes.grammar import CaptionError, things
from pictura.datasets.scenes.render import render
from pictura.datasets.scenes.stream import example
from pictura.errors import ParameterError
from pictura.evaluation import checkers, scorers
from pictura.evaluation.composition import judge
from pictura.picture import Picture
from pictura.request import Request

torch = pytest.importorskip("torch")
EXAMPLES = [example(i, split, basic=True) for split in ("validation", "held-out") for i in range(40)]


@pytest.mark.parametrize("change", [np.asarray, noisy, blurred])
def test_sees_objects_places_and_background(change: object) -> None:
    assert callable(change)
    look = checkers.checker_named("detector")
    for asked in EXAMPLES:
        sight = look(change(asked.image()))
        assert sorted((s.thing, s.x, s.y) for s in sight.things) == sorted(asked.scene.drawn()), asked.prompt
        assert sight.background == asked.scene.background


def test_wrong_captions_are_refused() -> None:
    for asked, other in zip(EXAMPLES, EXAMPLES[1:], strict=False):
        assert not judge(asked.image(), other.prompt, checker="detector").exact


def test_it_is_small() -> None:
    from importlib import resources

    path = resources.files("pictura.evaluation.checkers").joinpath("detector.safetensors")
    assert len(path.read_bytes()) <= 2_000_000
    with resources.as_file(path) as file, safe_open(file, "pt") as stored:
        learnt = [n for n in stored.keys() if "running" not in n]
        assert sum(stored.get_tensor(n).numel() for n in learnt) <= 800_000
        assert {stored.get_tensor(n).dtype for n in learnt} == {torch.bfloat16}


def test_checkers_are_found_and_unknown_ones_named() -> None:
    assert set(checkers.names()) >= {"detector", "template"}
    with pytest.raises(ParameterError, match="did you mean 'template'"):
        judge(EXAMPLES[0].image(), "a cat", checker="templat")


def drawn(image: np.ndarray, prompt: str) -> Picture:
    return Picture(image=Image.fromarray(image), request=Request(prompt=prompt, seed=0))


def test_scorer_prefers_the_right_picture() -> None:
    """Right against: another object, the mirrored order, one object fewer, another background."""
    score = scorers.scorer_named()
    for asked in EXAMPLES[:20]:
        scene = replace(asked.scene, told=True)
        prompt = asked.prompt.split(" on a ")[0] + f" on a {scene.background} background"
        worse = [
            replace(scene, objects=tuple((o + 1) % len(things()) for o in scene.objects)),
            replace(scene, background="pink" if scene.background != "pink" else "green"),
            replace(scene, kind="single", objects=scene.objects[:1], number=1, relation="",
                    places=scene.places[:1] if len(scene.places) > 1 else ((32, 96),)),
        ]
        if scene.kind == "relation":
            worse.append(replace(scene, places=scene.places[::-1]))
        right, *wrong = score([drawn(render(s), prompt) for s in (scene, *worse)])
        assert max(wrong) < right, (prompt, right, wrong)


def test_scores_are_the_same_alone_and_in_a_batch() -> None:
    score = scorers.scorer_named("scene_detector")
    pictures = [drawn(e.image(), e.prompt) for e in EXAMPLES[:6]]
    assert score(pictures) == pytest.approx([score([p])[0] for p in pictures], abs=1e-4)


def test_scorer_knows_only_scenes() -> None:
    with pytest.raises(CaptionError, match="zeppelin"):
        scorers.scorer_named()([drawn(EXAMPLES[0].image(), "a zeppelin")])
