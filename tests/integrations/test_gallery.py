"""distilabel's gallery, mended: asked over real HTTP, alone and in a pipeline, beside the stock classes."""

from __future__ import annotations

import base64
import inspect
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import loopback
from loopback import Answer, Loopback
from pictura.errors import ParameterError, PicturaError
from pictura.integrations.distilabel import InferenceEndpointsImageGeneration, OpenAIImageGeneration
from pictures import opened

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


def png(prompt: str, seed: int = 0) -> bytes:
    return loopback.png((len(prompt), seed % 256, 90), (8, 6))


def colour(image: str) -> tuple[int, int, int]:
    return opened(image).convert("RGB").getpixel((1, 1))


def openai(asked):
    """A server of OpenAI's API: base64, or addresses of its own; 400 for prompts it does not like."""
    if asked.method == "GET":
        return Answer(
            200, png(asked.path.rpartition("/")[2].removesuffix(".png")), {"content-type": "image/png"}
        )
    body = asked.json
    if "bad" in body["prompt"]:
        return Answer(
            400, {"error": {"message": "no such picture", "type": "x", "param": None, "code": None}}
        )
    count = body.get("n") or 1
    seed = body.get("seed") or 0
    if body.get("response_format") == "b64_json" or "seed" in body:
        data = [{"b64_json": base64.b64encode(png(body["prompt"], seed)).decode()} for _ in range(count)]
    else:
        host = asked.headers["host"]
        data = [{"url": f"http://{host}/files/{body['prompt'].replace(' ', '+')}.png"} for _ in range(count)]
    return {"created": 1, "data": data}


def huggingface(asked):
    body = asked.json
    if "bad" in body["inputs"]:
        return Answer(400, {"error": "no such picture"})
    return Answer(200, png(body["inputs"], body["parameters"].get("seed", 0)), {"content-type": "image/png"})


@pytest.fixture
def at_openai():
    with Loopback(openai) as server:
        yield server


@pytest.fixture
def at_huggingface():
    with Loopback(huggingface) as server:
        yield server


def loaded(model):
    model.load()
    return model


def test_openai_as_documented(at_openai):
    model = loaded(OpenAIImageGeneration(model="dall-e-3", api_key="k", base_url=f"{at_openai.url}/v1"))
    rows = model.generate_outputs(
        inputs=["a white siamese cat"], size="640x384", quality="hd", style="natural", num_generations=3
    )
    assert [len(output["images"]) for output in rows[0]] == [3]
    assert colour(rows[0][0]["images"][0])[2] == 90
    body = at_openai.asked[0].json
    assert (body["model"], body["size"], body["quality"], body["style"]) == (
        "dall-e-3",
        "640x384",
        "hd",
        "natural",
    )
    assert at_openai.asked[0].headers["authorization"] == "Bearer k"


def test_openai_with_seeds_and_a_bad_row(at_openai):
    model = loaded(OpenAIImageGeneration(model="m", api_key="k", base_url=f"{at_openai.url}/v1"))
    rows = model.generate(["a cat", "a bad one", "three"], num_generations=2, seed=50)
    assert [len(row[0]["images"]) for row in rows] == [2, 0, 2]
    assert [colour(image)[1] for row in rows for image in row[0]["images"]] == [50, 51, 54, 55]
    with pytest.raises(PicturaError, match="no such picture"):
        model.generate(["a bad one"])


def test_openai_base64_when_asked_for(at_openai):
    model = loaded(OpenAIImageGeneration(model="m", api_key="k", base_url=f"{at_openai.url}/v1"))
    (row,) = model.generate(["a cat {with braces|in it}"], response_format="b64_json")
    body = at_openai.asked[0].json
    assert "prompt_syntax" not in body
    assert body["response_format"] == "b64_json" and body["prompt"] == "a cat {with braces|in it}"
    assert colour(row[0]["images"][0]) == (len(body["prompt"]), 0, 90)


def test_huggingface_as_documented(at_huggingface):
    model = loaded(InferenceEndpointsImageGeneration(base_url=at_huggingface.url, api_key="k"))
    assert model.model_name == at_huggingface.url
    rows = model.generate_outputs(
        inputs=["a cat", "a bad one"],
        num_generations=2,
        negative_prompt="dogs",
        height=384.0,
        width=640.0,
        num_inference_steps=4.0,
        guidance_scale=2.5,
        seed=9,
    )
    assert [len(row[0]["images"]) for row in rows] == [2, 0]
    assert [colour(image) for image in rows[0][0]["images"]] == [
        (5, 9, 90),
        (5, 10, 90),
    ]  # and no JPEG between
    asked = next(one.json for one in at_huggingface.asked if one.json["inputs"] == "a cat")
    said = {"negative_prompt": "dogs", "height": 384, "width": 640, "num_inference_steps": 4}
    assert asked["parameters"].items() >= (said | {"guidance_scale": 2.5}).items()


def test_huggingface_needs_one_address():
    with pytest.raises(ParameterError, match="one of model_id"):
        InferenceEndpointsImageGeneration(api_key="k").load()
    with pytest.raises(ParameterError, match="one of model_id"):
        InferenceEndpointsImageGeneration(model_id="a/b", base_url="http://127.0.0.1:1", api_key="k").load()


def test_width_needs_height(at_huggingface):
    model = loaded(InferenceEndpointsImageGeneration(base_url=at_huggingface.url))
    with pytest.raises(ParameterError, match="give both"):
        model.generate(["a cat"], width=64)


def test_they_take_what_the_stock_ones_take():
    stock = pytest.importorskip("distilabel.models.image_generation")
    for ours in (OpenAIImageGeneration, InferenceEndpointsImageGeneration):
        theirs = getattr(stock, ours.__name__)
        assert issubclass(ours, stock.AsyncImageGenerationModel)
        mine = inspect.signature(ours.agenerate).parameters
        for name, parameter in inspect.signature(theirs.agenerate).parameters.items():
            assert mine[name].default == parameter.default, name
        named = {"model": "m"} if "model" in theirs.model_fields else {"model_id": "a/b"}
        made, stocked = ours(**named), theirs(**named)
        for name in theirs.model_fields:
            assert getattr(made, name) == getattr(stocked, name), name
        wanted, settable = stocked.runtime_parameters_names, made.runtime_parameters_names
        assert wanted.keys() <= settable.keys()
        assert wanted["generation_kwargs"].keys() <= settable["generation_kwargs"].keys()
        assert ours.from_dict({**stocked.dump(), "type_info": made.dump()["type_info"]}) == made


def test_a_key_is_never_dumped(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("HF_TOKEN", "sk-very-secret")
    for model in (OpenAIImageGeneration(model="m"), InferenceEndpointsImageGeneration(model_id="a/b")):
        assert "sk-very-secret" not in f"{model!r} {model.dump()}"


def test_headers_go_to_the_service_and_are_told_nobody():
    secret = "gate-very-secret"

    def answer(asked):
        if "bad" in asked.json["prompt"]:
            return Answer(400, {"error": {"message": f"not with {asked.headers['x-gate']}"}})
        return openai(asked)

    with Loopback(answer) as server:
        model = OpenAIImageGeneration(
            model="m", api_key="k", base_url=f"{server.url}/v1", default_headers={"X-Gate": f"Basic {secret}"}
        )
        model.load()
        model.generate(["a cat"], response_format="b64_json")
        assert server.asked[0].headers["x-gate"] == f"Basic {secret}"
        with pytest.raises(PicturaError, match=r"not with \*\*\*") as refused:
            model.generate(["a bad one"])
    assert secret not in f"{refused.value} {model!r} {model.dump()}"
    model.default_headers = {"Content-Length": "5"}
    with pytest.raises(ParameterError, match="cannot be sent"):
        model.load()


def test_each_row_has_its_own_seed_in_our_task(at_openai):
    pytest.importorskip("distilabel")
    from pictura.integrations.distilabel import ImageGeneration

    model = OpenAIImageGeneration(
        model="m", api_key="k", base_url=f"{at_openai.url}/v1", generation_kwargs={"seed": 7}
    )
    task = ImageGeneration(name="draw", image_generation_model=model)
    task.load()
    rows = [{"prompt": "a cat"}, {"prompt": "a star"}, {"prompt": "a dog", "seed": 9}]
    (together,) = task.process(rows)
    sent = {asked.json["prompt"]: asked.json["seed"] for asked in at_openai.asked}
    assert len(set(sent.values())) == 3 and sent["a dog"] == 9
    alone = [next(iter(task.process([row])))[0] for row in rows]
    assert [row["image"] for row in alone] == [row["image"] for row in together]


@pytest.mark.parametrize("kind", ["openai", "huggingface"])
def test_in_a_pipeline_that_is_resumed(kind, tmp_path, at_openai, at_huggingface):
    pytest.importorskip("distilabel")
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts

    from pictura.integrations.distilabel import ImageGeneration

    def run():
        if kind == "openai":
            model = OpenAIImageGeneration(model="m", api_key="k", base_url=f"{at_openai.url}/v1")
        else:
            model = InferenceEndpointsImageGeneration(base_url=at_huggingface.url, api_key="k")
        with Pipeline(name="remote", cache_dir=tmp_path) as pipeline:
            prompts = ["a cat", "a bad one", "three stars"]
            rows = LoadDataFromDicts(data=[{"prompt": prompt} for prompt in prompts])
            rows >> ImageGeneration(name="draw", image_generation_model=model, num_generations=2)
        return pipeline.run(use_cache=True)["default"]["train"]

    rows = run()
    made = [(row["prompt"], row["image"] is not None) for row in rows]
    assert made == [("a cat", True)] * 2 + [("a bad one", False)] + [("three stars", True)] * 2
    asked = len(at_openai.asked) + len(at_huggingface.asked)
    assert [row["image"] for row in run()] == [row["image"] for row in rows]
    assert len(at_openai.asked) + len(at_huggingface.asked) == asked  # nothing is paid for twice
    assert np.unique([row["image"] is None for row in rows]).tolist() == [False, True]


KILLED = """
import sys
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from pictura.integrations.distilabel import ImageGeneration, OpenAIImageGeneration
cache, keep, url = sys.argv[1:]
with Pipeline(name="killed", cache_dir=cache) as pipeline:
    rows = LoadDataFromDicts(data=[{"prompt": f"{row} stars"} for row in range(8)], batch_size=4)
    model = OpenAIImageGeneration(model="m", api_key="k", base_url=f"{url}/v1")
    rows >> ImageGeneration(name="draw", image_generation_model=model, input_batch_size=2, keep_in=keep)
if __name__ == "__main__":
    data = pipeline.run()["default"]["train"]
    assert [row["prompt"] for row in data if row["image"]] == [f"{row} stars" for row in range(8)]
"""


@pytest.mark.slow
def test_a_killed_pipeline_goes_on_where_it_was(tmp_path):
    """kill -9 of the whole group at three requests: at most the batch in flight is asked for again."""
    pytest.importorskip("distilabel")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    running: list[subprocess.Popen[bytes]] = []
    kills = {2, 5, 9}

    def answer(asked):
        if len(server.asked) in kills:
            os.killpg(running[-1].pid, signal.SIGKILL)
        return {"data": [{"b64_json": base64.b64encode(png(asked.json["prompt"])).decode()}]}

    with Loopback(answer) as server:
        for run in range(len(kills) + 1):
            # A new cache each time: a kill may tear distilabel's files, which are written in place.
            program = [
                sys.executable,
                "-W",
                "ignore",
                script,
                tmp_path / f"cache {run}",
                tmp_path / "kept",
                server.url,
            ]
            with open(tmp_path / "log", "wb") as log:
                running.append(subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True))
            status = running[-1].wait(120)
            assert status == (-signal.SIGKILL if run < len(kills) else 0), (tmp_path / "log").read_text()[
                -2000:
            ]
        assert {asked.json["prompt"] for asked in server.asked} == {f"{row} stars" for row in range(8)}
        assert len(server.asked) <= 8 + 2 * len(kills)
