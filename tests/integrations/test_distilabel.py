"""Our models and task in distilabel's real pipelines, and without distilabel."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pictura import TextToImage
from pictura.errors import InputError, PicturaError
from pictura.integrations.distilabel import AsyncPicturaImageGeneration, PicturaImageGeneration, to_pictures
from pictura.picture import Picture

pytest.importorskip("distilabel")

from distilabel.models.image_generation.base import AsyncImageGenerationModel  # noqa: E402

from pictures import opened, pixels

# distilabel, and what it uses, warn about themselves; we are not to fail for that.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)

PROMPTS = ["a cat", "a pizza left of a star", "three stars"]
QUICK = {"num_steps": 1}


@pytest.fixture(scope="module")
def scenes() -> TextToImage:
    return TextToImage.from_preset("scenes")


@pytest.fixture(params=[PicturaImageGeneration, AsyncPicturaImageGeneration])
def model(request, toy_name):
    made = request.param(model=toy_name, seed=7, num_steps=2)
    made.load()
    yield made
    made.unload()


@pytest.fixture
def toy_name() -> str:
    return "toy"


def test_pictures_are_those_of_generate(model):
    expected = TextToImage.from_preset("toy").generate(PROMPTS, num_steps=2, seed=7, num_images=2)
    found = model.generate_outputs(inputs=PROMPTS, num_generations=2)
    assert [len(row) for row in found] == [1, 1, 1]
    images = [image for row in found for image in row[0]["images"]]
    for image, picture in zip(images, expected, strict=True):
        np.testing.assert_array_equal(pixels(image), np.asarray(picture))


def test_what_a_call_says_wins(model):
    (row,) = model.generate(["a cat"], seed=3, num_steps=1)
    expected = TextToImage.from_preset("toy").generate("a cat", seed=3, num_steps=1)
    np.testing.assert_array_equal(pixels(row[0]["images"][0]), np.asarray(expected))


def test_each_png_says_how_it_was_made(model, tmp_path):
    (row,) = model.generate(["a cat"])
    path = tmp_path / "cat.png"
    path.write_bytes(base64.b64decode(row[0]["images"][0]))
    request = Picture.open(path).request
    assert (request.prompt, request.seed, request.num_steps, request.model) == ("a cat", 7, 2, "toy")


def test_one_bad_prompt_costs_no_other(model):
    rows = model.generate(["a cat", "a \0 dog", "a star"])
    assert [len(row[0]["images"]) for row in rows] == [1, 0, 1]
    with pytest.raises(PicturaError, match="NUL"):
        model.generate(["a \0 dog"])


def test_one_text_is_no_list_of_prompts(model):
    with pytest.raises((InputError, ValueError), match="list"):
        model.generate("a cat")


def test_before_loading_it_says_so(toy_name):
    with pytest.raises(InputError, match="call load"):
        PicturaImageGeneration(model=toy_name).generate(["a cat"])


def test_generate_inside_a_running_loop(model):
    async def within():
        return model.generate(["a cat"])

    assert len(asyncio.run(within())[0][0]["images"]) == 1


def test_the_key_is_never_dumped():
    model = PicturaImageGeneration(model="scenes", api_key="sk-very-secret")
    assert "sk-very-secret" not in f"{model!r} {model.dump()}"
    with pytest.raises(InputError, match="api_key=...") as refused:
        PicturaImageGeneration(preset_kwargs={"api_key": "sk-very-secret"})  # it would be dumped from there
    assert "sk-very-secret" not in str(refused.value)


def test_a_size_may_be_two_numbers(toy_name):
    assert PicturaImageGeneration(model=toy_name, size=(640, 384)).dump()["size"] == "640x384"
    assert AsyncPicturaImageGeneration(size=[640, 384]).size == "640x384"


def test_copies_for_other_processes_leave_the_loaded_model_behind(model):
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(InputError, match="call load"):
            twin.generate(["a cat"])
    assert model.generate(["a cat"])


def test_to_pictures_keeps_every_file_and_every_row(model):
    from datasets import Dataset, Image, List

    (row,) = model.generate(["a cat"], num_generations=2)
    one, two = row[0]["images"]
    made = to_pictures(Dataset.from_dict({"prompt": ["a", "b"], "image": [one, None]}))
    assert made.features["image"] == Image() and made["image"][1] is None
    stored = made.cast_column("image", Image(decode=False))["image"][0]["bytes"]
    assert Picture.open(io.BytesIO(stored)).request.prompt == "a cat"
    grouped = to_pictures(Dataset.from_dict({"image": [[one, two], [None]]}))
    assert grouped.features["image"] == List(Image())
    assert [len(images) for images in grouped["image"]] == [2, 1]
    with pytest.raises(InputError, match="give one of prompt, image"):
        to_pictures(made, "picture")


# In pipelines


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache"


def pipeline(cache, model, prompts=PROMPTS, **task):
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts

    from pictura.integrations.distilabel import ImageGeneration

    with Pipeline(name="pictures", cache_dir=cache) as made:
        rows = LoadDataFromDicts(data=[{"prompt": prompt} for prompt in prompts], batch_size=2)
        rows >> ImageGeneration(name="draw", image_generation_model=model, input_batch_size=2, **task)
    return made


def rows_of(distiset):
    return list(distiset["default"]["train"])


def test_a_pipeline_keeps_every_picture_and_resumes_from_its_cache(cache):
    model = PicturaImageGeneration(seed=7, **QUICK)
    model.load()  # somebody tried it first
    made = pipeline(cache, model, num_generations=2)
    rows = rows_of(made.run(use_cache=True))
    assert [row["prompt"] for row in rows] == [prompt for prompt in PROMPTS for _ in range(2)]
    assert {row["model_name"] for row in rows} == {"scenes"}
    assert len({row["image"] for row in rows}) == 6
    assert opened(rows[0]["image"]).format == "PNG"

    same = pipeline(cache, PicturaImageGeneration(seed=7, **QUICK), num_generations=2)
    again = rows_of(same.run(use_cache=True))
    assert [row["image"] for row in again] == [row["image"] for row in rows]


def test_saved_and_loaded_a_pipeline_draws_the_same(cache, tmp_path, scenes):
    from distilabel.pipeline import Pipeline
    from distilabel.steps.tasks import ImageGeneration as Stock  # noqa: F401 (must stay importable beside ours)

    from pictura.integrations.distilabel import ImageGeneration

    with Pipeline(name="saved", cache_dir=cache) as made:
        model = PicturaImageGeneration(seed=7)
        ImageGeneration(name="draw", image_generation_model=model, input_mappings={"seed": "number"})
    made.save(tmp_path / "pipeline.yaml", format="yaml")
    loaded = Pipeline.from_yaml(tmp_path / "pipeline.yaml")
    data = [{"prompt": "a cat"}, {"prompt": "a star", "number": 5}]
    from datasets import Dataset

    distiset = loaded.run(
        dataset=Dataset.from_list([{**row, "number": row.get("number")} for row in data]),
        parameters={"draw": {"image_generation_model": {"num_steps": 1}}},
        use_cache=False,
    )
    cat, star = rows_of(distiset)
    expected = scenes.generate("a star", seed=5, num_steps=1)
    np.testing.assert_array_equal(pixels(star["image"]), np.asarray(expected))
    assert not np.array_equal(pixels(cat["image"]), pixels(star["image"]))


class Stock(AsyncImageGenerationModel):
    """A model as distilabel's documentation has it: two dictionaries for a prompt, nothing that is ours."""

    @property
    def model_name(self) -> str:
        return "stock"

    async def agenerate(self, input: str, num_generations: int = 1):
        picture = TextToImage.from_preset("toy").generate(input, seed=len(input), num_steps=1)
        image = base64.b64encode(picture.to_bytes()).decode()
        return [{"images": [image]} for _ in range(num_generations)]


def test_a_stock_model_works_in_our_task_and_its_artifacts_are_all_kept(cache):
    made = pipeline(cache, Stock(), num_generations=2, save_artifacts=True)
    distiset = made.run(use_cache=False)
    rows = rows_of(distiset)
    assert [row["model_name"] for row in rows] == ["stock"] * 6
    assert len({row["image_path"] for row in rows}) == 6
    kept = distiset.artifacts_path / "draw" / "images"
    names = {row["image_path"].rpartition("/")[2] for row in rows}
    assert {path.name for path in kept.glob("*.png")} == names
    assert {Image.open(kept / name).format for name in names} == {"PNG"}


def test_runtime_parameters_reach_the_pixels(cache, scenes):
    made = pipeline(cache, PicturaImageGeneration(model="no such model", seed=7), row_seeds=False)
    said = {"model": "scenes", "num_steps": 1, "seed": 5, "size": [128, 128], "guidance_scale": 1.5}
    distiset = made.run(parameters={"draw": {"image_generation_model": said}}, use_cache=False)
    first = rows_of(distiset)[0]
    expected = scenes.generate(PROMPTS[0], num_steps=1, seed=5, guidance_scale=1.5)
    np.testing.assert_array_equal(pixels(first["image"]), np.asarray(expected))


def test_random_pictures_of_one_prompt_have_artifacts_of_their_own(cache):
    """Written as the model made them, beside rows that failed."""
    prompts = ["a cat", "a cat", "a \0 dog"]
    made = pipeline(cache, PicturaImageGeneration(**QUICK), prompts, save_artifacts=True, image_format="png")
    distiset = made.run(use_cache=False)
    first, second, failed = rows_of(distiset)
    assert first["image_path"] != second["image_path"] and failed["image_path"] is None
    for row in (first, second):
        path = distiset.artifacts_path / "draw" / "images" / row["image_path"].rpartition("/")[2]
        assert path.read_bytes() == base64.b64decode(row["image"])


def test_without_distilabel_the_models_stand_on_the_same_interface(tmp_path):
    """In a process where distilabel cannot be imported."""
    program = """
import sys
sys.modules["distilabel"] = None
from pictura.integrations.distilabel import AsyncPicturaImageGeneration, PicturaImageGeneration, base
assert base.ImageGenerationModel.__module__ == "pictura.integrations.distilabel.base"
for kind in (PicturaImageGeneration, AsyncPicturaImageGeneration):
    model = kind(seed=7, num_steps=1)
    model.load()
    rows = model.generate_outputs(["a cat", "a star"], num_generations=2, **model.get_generation_kwargs())
    assert [len(row[0]["images"]) for row in rows] == [2, 2], rows
    assert [p.name for p in model.generate_parameters][0] in ("input", "inputs")
    model.unload()
class Each(base.AsyncImageGenerationModel):
    _num_generations_param_supported = False
    model_name = property(lambda self: "each")
    async def agenerate(self, input: str):
        return [{"images": [input]}]
assert Each().generate(["a"], num_generations=2) == [[{"images": ["a"]}, {"images": ["a"]}]]
try:
    from pictura.integrations.distilabel import ImageGeneration
except ImportError as error:
    assert "pip install" in str(error), error
try:
    base.ImageGenerationModel()
except TypeError as error:
    assert "abstract" in str(error)
else:
    raise SystemExit("an abstract class was made")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
