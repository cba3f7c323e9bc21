"""DashAI's interface without DashAI: our models, their forms, the task, and processes over the history.

The same with DashAI itself is in test_dashai_server.py.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from pictura import TextToImage
from pictura.errors import InputError, ParameterError, PicturaError
from pictura.history import History
from pictura.history.claims import Claims
from pictura.integrations.dashai import (
    PicturaGanCls,
    PicturaModel,
    PicturaScenes,
    TextToImageGenerationTask,
    offer,
    processes,
    run,
)
from pictura.integrations.dashai.base import ProcessData
from pictura.integrations.dashai.facts import Range, facts
from pictura.integrations.dashai.models import loaded
from pictura.picture import Picture
from pictura.request import MAX_STEPS

QUICK = {"num_inference_steps": 1}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's own history."""
    monkeypatch.setenv("PICTURA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PICTURA_HISTORY", raising=False)
    return tmp_path / "home"


@pytest.fixture
def history(home):
    with History() as made:
        yield made


@pytest.fixture
def task(history):
    return TextToImageGenerationTask(history)


@pytest.fixture(scope="module")
def scenes():
    return TextToImage.from_preset("scenes", history=False)


# The models


def test_pictures_are_those_of_generate(scenes):
    images = PicturaScenes(seed=0, num_images_per_prompt=2, num_inference_steps=2).generate("a cat")
    expected = scenes.generate("a cat", num_steps=2, seed=0, num_images=2)
    assert len(images) == 2
    for image, picture in zip(images, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(picture))


def test_a_seed_below_zero_is_a_random_one_that_is_recorded(scenes):
    first, second = (PicturaScenes(seed=-1, **QUICK).generate("a cat")[0] for _ in range(2))
    assert first.picture.request.seed != second.picture.request.seed
    again = scenes.generate("a cat", num_steps=1, seed=first.picture.request.seed)
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))


def test_every_parameter_reaches_the_picture():
    said = {
        "negative_prompt": "a dog", "num_inference_steps": 3, "guidance_scale": 2.5, "sampler": "dpmpp_2m",
        "width": 128, "height": 128, "seed": 5, "num_images_per_prompt": 1,
        "options": "guidance_rescale=0.5 schedule=karras",
    }  # fmt: skip
    (image,) = PicturaScenes(**said).generate("a cat")
    request = image.picture.request
    assert (request.negative_prompt, request.num_steps, request.guidance_scale) == ("a dog", 3, 2.5)
    assert (request.sampler, request.size, request.seed) == ("dpmpp_2m", (128, 128), 5)
    assert (request.options["guidance_rescale"], request.schedule) == (0.5, "karras")
    assert request.model == "scenes"


def test_saved_as_dashai_saves_it_the_file_tells_how_it_was_made(tmp_path):
    (image,) = PicturaScenes(seed=3, **QUICK).generate("a cat")
    assert isinstance(image, Image.Image) and (image.size, image.mode) == ((128, 128), "RGB")
    image.save(tmp_path / "cat.png", format="PNG")
    kept = Picture.open(tmp_path / "cat.png")
    assert kept.request == image.picture.request and kept.model_digest
    again = TextToImage.from_preset(kept.request.model, history=False).generate(kept.request)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert buffer.getvalue() == (tmp_path / "cat.png").read_bytes()


def test_a_picture_that_was_painted_over_is_not_told_to_be_the_models(tmp_path):
    (image,) = PicturaScenes(seed=3, **QUICK).generate("a cat")
    image.putpixel((0, 0), (1, 2, 3))
    image.save(tmp_path / "other.png")
    image.save(tmp_path / "small.jpg", quality=50)
    with Image.open(tmp_path / "other.png") as other:
        assert other.getpixel((0, 0)) == (1, 2, 3)
    with pytest.raises(PicturaError):
        Picture.open(tmp_path / "other.png")


def test_weights_are_loaded_once(monkeypatch):
    loaded.cache_clear()
    PicturaScenes(seed=1, **QUICK).generate("a cat")
    monkeypatch.setattr(TextToImage, "from_preset", None)
    assert PicturaScenes(seed=2, **QUICK).generate("a dog")


def test_one_picture_that_fails_costs_no_other(history, monkeypatch, toy_fails):
    found = offer("toy")(seed=0, num_images_per_prompt=3).generate("a cat")
    assert [image.picture.request.seed for image in found] == [0, 2]
    (process,) = processes(history)
    assert process.status == "finished" and len(process.output) == 2


@pytest.fixture
def toy_fails(monkeypatch):
    """The toy model cannot draw seed 1."""
    from pictura_toy.family import FAMILY

    draw = FAMILY.run

    def run(self, request, note):
        if request.seed == 1:
            raise RuntimeError("no seed 1 today")
        return (yield from draw(self, request, note))

    loaded.cache_clear()
    monkeypatch.setattr(FAMILY, "run", run)
    yield
    loaded.cache_clear()


@pytest.mark.parametrize(
    "said, told",
    [
        ({"width": 64}, "width is 64.*128"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0.*1"),
        ({"num_images_per_prompt": 101}, "100"),
        ({"seed": "7 cats"}, "seed is '7 cats'.*integer"),
        ({"sampler": "magic"}, "magic.*euler"),
    ],
)
def test_what_the_form_does_not_allow(said, told):
    with pytest.raises(ParameterError, match=told):
        PicturaScenes(**said)


@pytest.mark.parametrize(
    "model, said, told",
    [
        (PicturaScenes, {"negative_prompt": "a dog"}, "guidance_scale above 1"),
        (PicturaScenes, {"options": "'"}, "options cannot be read"),
        (PicturaScenes, {"options": "seed=3"}, "place of its own"),
        (PicturaScenes, {"options": "num_steps=3"}, "place of its own"),
        (PicturaScenes, {"options": "colour=3"}, "cannot use colour"),
        (PicturaModel, {"model": "scnes"}, "scenes"),
        (PicturaModel, {"model": "scenes", "width": 64}, "width and height"),
        (PicturaModel, {"model": "scenes", "width": 64, "height": 64}, "128x128"),
        (PicturaModel, {"model": "openai://nothing"}, "OPENAI_API_KEY"),
    ],
)
def test_what_the_model_does_not_allow_is_told_in_one_sentence(model, said, told, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(PicturaError, match=told) as error:
        model(**{**QUICK, **said}).generate("a cat")
    assert "\n" not in str(error.value)


# Their forms


def fields(model):
    return model.get_schema()["properties"]


def test_the_form_has_the_ranges_and_defaults_of_the_model(scenes):
    found, own = fields(PicturaScenes), scenes.family.defaults()
    steps = found["num_inference_steps"]
    assert (steps["minimum"], steps["maximum"], steps["placeholder"]) == (1, MAX_STEPS, own["num_steps"])
    assert found["guidance_scale"]["placeholder"] == own["guidance_scale"]
    assert found["sampler"]["placeholder"] == own["sampler"] and "heun" in found["sampler"]["enum"]
    assert (found["width"]["minimum"], found["width"]["maximum"]) == (128, 128)
    assert (found["seed"]["minimum"], found["seed"]["placeholder"]) == (-1, -1)
    assert found["num_images_per_prompt"]["minimum"] == 1
    assert "guidance_rescale" in found["options"]["description"]


def test_the_form_asks_for_nothing_that_the_model_cannot_use():
    assert list(fields(PicturaGanCls)) == ["width", "height", "seed", "num_images_per_prompt", "options"]
    assert list(fields(PicturaModel))[0] == "model" and "sampler" in fields(PicturaModel)


def test_what_the_form_shows_at_first_can_be_sent_and_works():
    for model in (PicturaScenes, PicturaGanCls, PicturaModel):
        shown = {name: field["placeholder"] for name, field in fields(model).items()}
        assert len(model(**shown).generate("a star")) == 1


def test_what_was_left_empty_is_as_the_model_has_it():
    left = {name: "" for name in fields(PicturaModel) if fields(PicturaModel)[name]["placeholder"] is None}
    (image,) = PicturaModel(**{**left, "model": "scenes"}).generate("a star")
    assert len(left) == 7 and image.picture.request.num_steps == 12


def test_sizes_of_a_model_that_draws_several(small_diffusion):
    known = facts(str(small_diffusion))
    family = TextToImage.from_preset(small_diffusion).family
    assert known.width == known.height == Range(family.multiple, family.largest, family.multiple)
    assert "euler" in known.samplers and known.uses("negative_prompt")


@pytest.fixture(scope="module")
def small_diffusion(tmp_path_factory):
    """A Stable Diffusion of a few thousand weights, as diffusers saves it."""
    from pipelines import pipeline

    folder = tmp_path_factory.mktemp("model")
    pipeline("sd1").save_pretrained(folder)
    return folder


def test_nothing_is_downloaded_to_offer_a_model():
    big = offer("stable-diffusion-xl", "SDXL by Pictura")
    assert big.__name__ == "PicturaStableDiffusionXl" and big.DISPLAY_NAME == "SDXL by Pictura"
    assert "sampler" in fields(big) and fields(big)["width"]["placeholder"] is None
    away = offer("hf://nobody/nothing")
    assert away.__name__ == "PicturaHfNobodyNothing" and "negative_prompt" in fields(away)
    assert facts("openai://gpt-image-1").uses("size") and not facts("openai://gpt-image-1").uses("sampler")


def test_a_model_of_ones_own(tmp_path, scenes):
    scenes.save_to_preset(tmp_path / "mine")
    mine = offer(str(tmp_path / "mine"), "Mine", "My own scenes.")
    assert facts(str(tmp_path / "mine")).width == Range(128, 128)
    (image,) = mine(seed=4, **QUICK).generate("a cat")
    np.testing.assert_array_equal(np.asarray(image), np.asarray(scenes.generate("a cat", 1, seed=4)))


def test_a_model_that_is_gone_is_offered_and_says_so(tmp_path, caplog):
    gone = offer(str(tmp_path / "gone"))
    assert "not known" in caplog.text
    with pytest.raises(PicturaError, match="is no folder and no file"):
        gone().generate("a cat")


# The task


def test_types_and_how_many():
    assert TextToImageGenerationTask.get_metadata() == {
        "inputs": {"str": {"min": 1, "max": 1}},
        "outputs": {"Image": {"min": 1, "max": "n"}},
        "entry_point": "generic",
    }


def test_the_way_of_a_prompt(task):
    rows = task.prepare_input_for_database(["a cat"])
    assert rows == [("a cat", "str")]
    stored = [ProcessData(data=data, data_type=kind) for data, kind in rows]
    assert task.process_input_from_database(stored) is stored
    assert task.prepare_for_task(stored) == "a cat"


@pytest.mark.parametrize("bad", [[], ["a", "b"], [b"a cat"], [7]])
def test_one_text_goes_in(task, bad):
    with pytest.raises(InputError):
        task.prepare_input_for_database(bad)


def test_one_row_goes_in(task):
    with pytest.raises(InputError, match="2 inputs"):
        task.prepare_for_task([ProcessData("a", "str"), ProcessData("b", "str")])
    with pytest.raises(InputError, match="Image"):
        task.prepare_for_task([ProcessData("a.png", "Image")])


def test_pictures_go_into_the_folder_that_dashai_names(task, tmp_path):
    images = PicturaScenes(seed=0, num_images_per_prompt=2, **QUICK).generate("a cat")
    foreign = Image.new("L", (5, 4), 7)
    found = task.process_output([*images, images[0].picture, foreign], images_path=tmp_path / "a" / "images")
    assert [kind for _, kind in found] == ["Image"] * 4
    files = [tmp_path / "a" / "images" / name for name, _ in found]
    assert sorted(files) == sorted((tmp_path / "a" / "images").iterdir())
    assert [Picture.open(file).request.seed for file in files[:3]] == [0, 1, 0]
    with Image.open(files[3]) as other:
        assert other.size == (5, 4) and other.format == "PNG"


def test_without_a_folder_they_go_to_the_history(task, history):
    images = PicturaScenes(seed=0, **QUICK).generate("a cat")
    assert history.count() == 1  # the model has kept it
    found = task.process_output([*images, images[0].picture])
    assert history.count() == 2  # and one that was made otherwise is new
    rows = [ProcessData(data=f"/somewhere/{name}", data_type=kind, is_input=False) for name, kind in found]
    seen = task.process_output_from_database(rows)
    assert [row.data for row in seen] == [name for name, _ in found]
    for row in seen:
        np.testing.assert_array_equal(np.asarray(task.picture(row)), np.asarray(images[0]))
    with pytest.raises(InputError, match="images_path"):
        task.process_output([Image.new("RGB", (2, 2))])


def test_at_least_one_picture_comes_out(task, tmp_path):
    with pytest.raises(InputError, match="no picture"):
        task.process_output([], images_path=tmp_path)
    with pytest.raises(InputError, match="not an image"):
        task.process_output(["cat.png"], images_path=tmp_path)


# Alone


def test_a_process_keeps_parameters_and_seeds_and_is_made_again_alike(history, task, scenes):
    said = {"seed": 0, "num_images_per_prompt": 2, "num_inference_steps": 2, "guidance_scale": 1.5}
    process = run("a cat", PicturaScenes, said, history=history)
    assert process.status == "finished" and [row.data for row in process.input] == ["a cat"]
    assert [request.seed for request in process.requests] == [0, 1]
    assert {(r.num_steps, r.guidance_scale, r.model) for r in process.requests} == {(2, 1.5, "scenes")}
    assert [row.data_type for row in process.output] == ["Image", "Image"]
    for row, seed in zip(process.output, [0, 1], strict=True):
        picture = task.picture(row)
        assert picture.request.seed == seed
        again = scenes.generate(picture.request)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(picture))
    assert processes(history) == [process]


def test_a_random_seed_is_kept_too(history, task):
    process = run("a cat", PicturaScenes, QUICK, history=history)
    assert process.requests[0].seed == task.picture(process.output[0]).request.seed >= 0


def test_a_process_that_failed_says_why_and_keeps_its_parameters(history):
    process = run("a cat", PicturaScenes, {"negative_prompt": "a dog", "seed": 9}, history=history)
    (row,) = process.output
    assert process.status == "error" and row.data_type == "str" and not row.is_input
    assert row.data.startswith("Error details: negative_prompt does nothing at guidance_scale 1")
    assert (process.requests[0].seed, process.requests[0].negative_prompt) == (9, "a dog")


def test_a_process_that_was_stopped_is_over(history, monkeypatch):
    def stopped(self, *_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(TextToImage, "stream", stopped)
    with pytest.raises(KeyboardInterrupt):
        PicturaScenes(**QUICK).generate("a cat")
    (process,) = processes(history)
    assert process.status == "error" and "stopped" in process.output[0].data


def test_what_a_killed_worker_had_begun_is_cancelled_by_the_next(history):
    """DashAI kills its worker to cancel; nobody is to make those pictures later."""
    code = (
        "from pictura.integrations.dashai import PicturaScenes;"
        "PicturaScenes(num_inference_steps=1000, num_images_per_prompt=50).generate('a cat')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        while not processes(history):
            assert worker.poll() is None
            time.sleep(0.05)
        PicturaScenes(**QUICK).generate("a dog")
        assert [process.status for process in processes(history)] == ["finished", "started"]
    finally:
        worker.kill()
        worker.wait()
    PicturaScenes(**QUICK).generate("a star")
    assert [process.status for process in processes(history)] == ["finished", "finished", "error"]
    assert Claims(history).wanted() == []


def test_it_keeps_nothing_where_it_is_told_so(history, monkeypatch):
    monkeypatch.setenv("PICTURA_HISTORY", "off")
    assert PicturaScenes(**QUICK).generate("a cat")
    assert history.count() == 0 and processes(history) == []


def test_a_history_that_cannot_be_used_costs_dashai_no_picture(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PICTURA_HOME", str(tmp_path / "file"))
    assert PicturaScenes(**QUICK).generate("a cat")[0].entry is None
    assert "history cannot be used" in caplog.text
    with pytest.raises(PicturaError):
        run("a cat", PicturaScenes, QUICK)


def test_importing_is_cheap():
    code = (
        "import sys, pictura.integrations.dashai as d; dir(d); "
        "print([name for name in ('torch', 'DashAI', 'pydantic', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
