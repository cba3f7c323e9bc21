"""`evaluate` on painters whose accuracy is known: real renders of what was asked, or of something else."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pictura.datasets.scenes.grammar import COLOURS, Scene, layout, parse
from pictura.datasets.scenes.render import render
from pictura.errors import FileError, ParameterError
from pictura.evaluation import evaluate
from pictura.evaluation.run import BATCH
from pictura.evaluation.suites import scenes
from pictura.picture import Picture, Pictures
from pictura.request import Request

pytest.importorskip("torch")


class Painter:
    """Draws what a caption asks for, on a background of the seed's choice where none is told; in pictures
    whose seed is in `mirrored` the objects change places."""

    def __init__(self, mirrored: Sequence[int] = ()) -> None:
        self.mirrored = mirrored
        self.calls: list[dict[str, Any]] = []

    def generate(self, inputs: list[str], *, seed: int = 0, **settings: Any) -> Pictures:
        self.calls.append({"n": len(inputs), "seed": seed, **settings})
        return Pictures([self._paint(prompt, seed + i) for i, prompt in enumerate(inputs)])

    def _paint(self, prompt: str, seed: int) -> Picture:
        wish = parse(prompt)
        colour = wish.background or random.Random(seed).choice(list(COLOURS))
        places = layout(wish.kind, wish.number, wish.relation, (64, 64))
        if seed in self.mirrored:
            places = places[::-1] if wish.kind == "relation" else places[:1]
        scene = Scene(kind=wish.kind if len(places) > 1 else "single", objects=wish.objects,
                      number=wish.number if len(places) > 1 else 1, relation=wish.relation, background=colour,
                      told=True, places=places)
        request = Request(prompt=prompt, seed=seed, num_steps=3, model="painter")
        return Picture(image=Image.fromarray(render(scene)), request=request, model_digest="abc")


def test_suite_has_as_many_of_each_and_is_the_same_every_time() -> None:
    cases = scenes(7)
    assert [c.prompt for c in cases] == [c.prompt for c in scenes(7)]
    counted = [c.category for c in cases]
    assert all(counted.count(n) == 7 for n in ("single object", "relation", "count", "held-out relation"))
    fewer = [c.prompt for c in scenes(3)]
    assert set(fewer) < {c.prompt for c in cases} and len(fewer) == 12


def test_a_perfect_painter_has_full_marks(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    report = evaluate(Painter(), count=6, out=tmp_path / "r", measure=["kid", "diversity"],
                      progress=lambda d, t: done.append((d, t)))
    assert done[-1] == (24, 24)
    for checker in ("template", "detector"):
        for category in ("single object", "relation", "held-out relation", "count", "background"):
            share = report.share(category, checker)
            assert share.right == share.total and share.low < 1 == share.high
    assert report.failures() == []
    assert report.metrics["diversity"][0] == pytest.approx(1, abs=0.2)
    assert (report.model, report.digest) == ("painter", "abc")


def test_wrong_pictures_are_counted_listed_and_shown(tmp_path: Path) -> None:
    cases = scenes(5)
    at = [i for i, c in enumerate(cases) if c.category == "relation"][:2]
    out = tmp_path / "r"
    report = evaluate(Painter(mirrored=[100 + i for i in at]), count=5, seed=100, out=out, measure=[])
    assert (report.share("relation").right, report.share("relation").total) == (3, 5)
    assert report.share("held-out relation").right == 5
    assert [j.prompt for j in report.failures()] == [cases[i].prompt for i in at]
    values = json.loads((out / "report.json").read_text())
    wrong = [p for p in values["pictures"] if not p["verdicts"]["template"]["exact"]]
    assert [p["seed"] for p in wrong] == [100 + i for i in at]
    assert {p["verdicts"]["template"]["relation"] for p in wrong} == {False}
    text = (out / "report.md").read_text()
    assert "60.0% (3/5" in text and cases[at[0]].prompt in text
    for i in at:
        with Image.open(out / "pictures" / f"{i:05}.png") as image:
            assert image.size == (128, 128)
    page = (out / "report.html").read_text()
    assert cases[at[0]].prompt in page and "data:image/png;base64," in page


def test_seeds_and_settings_reach_the_model() -> None:
    painter = Painter()
    report = evaluate(painter, count=5, seed=7, settings={"num_steps": 3, "best_of": 4}, measure=[])
    assert [c["n"] for c in painter.calls] == [BATCH, 20 - BATCH]
    assert [c["seed"] for c in painter.calls] == [7, 7 + 4 * BATCH]
    assert all(c["num_steps"] == 3 and c["best_of"] == 4 for c in painter.calls)
    assert report.to_dict()["settings"] == {"num_steps": 3, "best_of": 4}


@pytest.mark.parametrize("bad, message", [
    ({"suite": "scense"}, "did you mean 'scenes'"),
    ({"count": 0}, "count is 0"),
    ({"count": True}, "count is True"),
    ({"seed": -1}, "seed is -1"),
    ({"measure": ["fidd"]}, "did you mean 'fid'"),
    ({"measure": ["clipscore"]}, "without clip"),
])
def test_bad_arguments_are_refused_before_any_work(bad: dict[str, Any], message: str) -> None:
    painter = Painter()
    with pytest.raises(ParameterError, match=message):
        evaluate(painter, **bad)
    assert painter.calls == []


def test_a_report_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "notes.txt").write_text("mine")
    painter = Painter()
    with pytest.raises(FileError, match="exists already"):
        evaluate(painter, count=1, out=tmp_path / "r")
    with pytest.raises(FileError, match="there is no folder"):
        evaluate(painter, count=1, out=tmp_path / "no" / "r")
    assert painter.calls == []
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["notes.txt"]
