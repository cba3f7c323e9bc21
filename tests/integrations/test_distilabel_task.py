"""Our task, row by row: what becomes of rows, seeds, failures and finished pictures."""

from __future__ import annotations

import base64
import io

import pytest

from pictura.errors import FileError
from pictura.integrations.distilabel import PicturaImageGeneration
from pictura.picture import Picture

pytest.importorskip("distilabel")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)

PROMPTS = ["a cat", "a pizza left of a star", "three stars"]


@pytest.fixture
def toy_name() -> str:
    return "toy"


def task(model, **settings):
    from pictura.integrations.distilabel import ImageGeneration

    made = ImageGeneration(name="draw", image_generation_model=model, **settings)
    made.load()
    return made


def seed_of(image: str) -> int:
    return Picture.open(io.BytesIO(base64.b64decode(image))).request.seed


def test_a_row_that_cannot_be_drawn_costs_no_other(toy_name):
    seeds = [5, 5.0, float("nan"), None, -1, 2**70, 5.5, "7", True]
    rows = [{"prompt": "a cat", "seed": seed} for seed in seeds] + [{"prompt": None}, {"prompt": 3}, {}]
    (found,) = task(PicturaImageGeneration(model=toy_name, seed=7)).process(rows)
    assert [row["image"] is not None for row in found] == [True] * 4 + [False] * 8
    assert [seed_of(row["image"]) for row in found[:2]] == [5, 5]
    assert seed_of(found[2]["image"]) == seed_of(found[3]["image"]) not in seeds  # made of 7 and the prompt


def test_group_generations_gives_a_row_for_each_prompt(toy_name):
    drawing = task(PicturaImageGeneration(model=toy_name, seed=7), num_generations=2, group_generations=True)
    (rows,) = drawing.process([{"prompt": prompt} for prompt in PROMPTS])
    assert [(row["prompt"], len(set(row["image"])), row["model_name"]) for row in rows] == [
        (prompt, 2, "toy") for prompt in PROMPTS
    ]


def test_what_earlier_tasks_say_of_a_row_is_kept(toy_name):
    earlier = {"raw_output_write": "a cat"}
    (rows,) = task(PicturaImageGeneration(model=toy_name)).process(
        [{"prompt": "a cat", "distilabel_metadata": earlier}]
    )
    assert rows[0]["distilabel_metadata"].keys() == {"raw_output_write", "raw_output_draw", "raw_input_draw"}
    assert earlier == {"raw_output_write": "a cat"}


def test_a_signature_takes_any_options(toy_name):
    def signature(**settings):
        return task(PicturaImageGeneration(model=toy_name, **settings)).signature

    assert signature(options={"a": [["b", 1.0]]}) != signature(options={"a": [["b", 2.0]]})
    assert signature(options={"a": ["b-c"]}) != signature(options={"a": ["b", "c"]})
    assert signature(seed=7) == signature(seed=7)


def test_finished_rows_are_kept_and_failed_ones_drawn_again(toy_name, tmp_path):
    folder = tmp_path / "kept pictures"
    rows = [{"prompt": prompt} for prompt in ("a cat", "a \0 dog", "a star")]
    (first,) = task(PicturaImageGeneration(model=toy_name), keep_in=str(folder)).process(rows)
    again = task(PicturaImageGeneration(model=toy_name), keep_in=str(folder))
    assert again.use_cache is False  # distilabel's would not ask for the failed ones again
    (second,) = again.process([*rows[1:], {"prompt": "two"}, rows[0]])
    images = {row["prompt"]: row["image"] for row in second}  # of random seeds, so not drawn again
    assert all(images[row["prompt"]] == row["image"] for row in first) and images["two"]
    changed = task(PicturaImageGeneration(model=toy_name, num_steps=1), keep_in=str(folder))
    assert next(iter(changed.process(rows[:1])))[0]["image"] != images["a cat"]
    assert len(list(folder.rglob("*.json"))) == 4


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_drawn(toy_name, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="keep_in"):
        task(PicturaImageGeneration(model=toy_name), keep_in=str(tmp_path / "file"))


def test_a_rows_pictures_do_not_depend_on_its_batch(toy_name):
    drawing = task(PicturaImageGeneration(model=toy_name, seed=7))
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    (together,) = drawing.process(rows)
    alone = [next(iter(drawing.process([row])))[0] for row in rows]
    assert [row["image"] for row in together] == [row["image"] for row in alone]
