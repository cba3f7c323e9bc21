"""Hugging Face's own clients against a real server."""

from __future__ import annotations

import asyncio
import io
import json

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import BadRequestError, HfHubHTTPError
from PIL import Image

from pictura.picture.metadata import metadata_of

pytestmark = pytest.mark.usefixtures("online")


@pytest.fixture(scope="module")
def cat(scenes):
    return np.asarray(scenes.generate("a cat", seed=7, num_steps=3, guidance_scale=2.5))


CAT = {"seed": 7, "num_inference_steps": 3, "guidance_scale": 2.5}


@pytest.mark.parametrize("path", ["", "/", "/models/scenes", "/models/scenes/"])
def test_the_client(server, cat, path):
    with huggingface_hub.InferenceClient(base_url=server.url + path) as client:
        image = client.text_to_image("a cat", **CAT)
    assert image.size == (128, 128) and np.array_equal(np.asarray(image.convert("RGB")), cat)


def test_every_parameter_of_the_client(server, scenes):
    with huggingface_hub.InferenceClient(model=f"{server.url}/models/scenes") as client:
        image = client.text_to_image(
            "a cat", negative_prompt="a dog", width=128, height=128, seed=3, num_inference_steps=4,
            scheduler="HeunDiscreteScheduler", guidance_scale=2.0,
            extra_body={"schedule": "karras", "guidance_rescale": 0.5},
        )  # fmt: skip
    expected = scenes.generate(
        "a cat", negative_prompts="a dog", size="128x128", seed=3, num_steps=4, sampler="heun",
        schedule="karras", guidance_rescale=0.5, guidance_scale=2.0,
    )  # fmt: skip
    assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(expected))


def test_the_asynchronous_client(server, cat):
    async def ask():
        async with huggingface_hub.AsyncInferenceClient(base_url=server.url) as client:
            return await asyncio.gather(*(client.text_to_image("a cat", **CAT) for _ in range(3)))

    for image in asyncio.run(ask()):
        assert np.array_equal(np.asarray(image.convert("RGB")), cat)


@pytest.mark.parametrize(
    ("accept", "form"),
    [("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/avif,image/webp;q=0.9", "WEBP"), ("*/*", "PNG")],
)
def test_the_answer_says_what_made_it(server, accept, form):
    answer = server.request(
        "POST", "/models/scenes", json={"inputs": "a cat", "parameters": {**CAT, "width": None}},
        headers={"accept": accept},
    )  # fmt: skip
    assert answer.headers["content-type"] == f"image/{form.lower()}"
    assert Image.open(io.BytesIO(answer.content)).format == form
    assert metadata_of(answer.content).request.seed == 7 == int(answer.headers["x-pictura-seed"])
    said = json.loads(answer.headers["x-pictura-parameters"])
    assert said["num_steps"] == 3 and said["size"] == [128, 128] and said["model"] == "scenes"
    kept = server.get(answer.headers["x-pictura-url"])
    assert metadata_of(kept.content).request.prompt == "a cat"


def test_whole_floats(server, cat):
    body = {"inputs": "a cat", "parameters": {**CAT, "height": 128.0, "width": 128.0, "seed": 7.0}}
    answer = server.request("POST", "/", json=body)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")), cat)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"width": 96, "height": 96}, "128x128"),
        ({"width": 96}, "no height"),
        ({"scheduler": "Nonsense"}, "sampler"),
        ({"num_inference_steps": 0}, "num_steps"),
        ({"extra_body": {"magic": 1}}, "magic"),
    ],
)
def test_errors(server, parameters, words):
    with huggingface_hub.InferenceClient(base_url=server.url) as client:
        with pytest.raises(BadRequestError, match=words) as caught:
            client.text_to_image("a cat", **parameters)
    answer = caught.value.response
    assert words in answer.json()["error"] and words in answer.headers["x-error-message"]
    assert answer.headers["x-request-id"]


def test_unknown_models_and_bodies(server):
    with huggingface_hub.InferenceClient(base_url=f"{server.url}/models/nothing") as client:
        with pytest.raises(HfHubHTTPError, match="scenes"):
            client.text_to_image("a cat")
    for body in ({}, {"inputs": 3}, {"inputs": "a", "parameters": []}):
        answer = server.request("POST", "/", json=body)
        assert answer.status_code == 400 and isinstance(answer.json()["error"], str)
    words = server.request("POST", "/", json={"inputs": "a", "parameters": {"schedule": "é\n\r猫"}})
    assert words.status_code == 400 and "\n" not in words.headers["x-error-message"]
    assert (
        server.request("POST", "/", json={"inputs": "a"}, headers={"accept": "text/html"}).status_code == 400
    )


def test_the_page_is_still_there(server):
    assert server.get("/").status_code == 200
