"""One request over every route and through every client: the same pixels as here."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import subprocess
import sys
from pathlib import Path

import httpx2
import huggingface_hub
import numpy as np
import openai
import pytest
import webuiapi
from PIL import Image
from test_server_client_pages import script

from crowds import together
from pictura import TextToImage
from pictura.picture.metadata import metadata_of
from pictures import opened

pytestmark = pytest.mark.usefixtures("online")

PROMPT = "a cat left of a pizza"
SEED, STEPS, SCALE = 2**31 + 5, 5, 2.5
EXTRA = {"seed": SEED, "num_steps": STEPS, "guidance_scale": SCALE}
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def expected(scenes):
    return np.asarray(scenes.generate(PROMPT, seed=SEED, num_steps=STEPS, guidance_scale=SCALE))


def native(server):
    done = server.ended(server.submit({"prompt": PROMPT, **EXTRA})["id"])
    return Image.open(io.BytesIO(server.get(done["images"][0]["url"]).content))


def openai_base64(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        return opened(client.images.generate(prompt=PROMPT, extra_body=EXTRA).data[0].b64_json)


def openai_url(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        made = client.images.generate(prompt=PROMPT, response_format="url", extra_body=EXTRA)
    return Image.open(io.BytesIO(httpx2.get(made.data[0].url).content))


def openai_webp(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        return opened(
            client.images.generate(prompt=PROMPT, output_format="webp", extra_body=EXTRA).data[0].b64_json
        )


def openai_stream(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        made = client.images.generate(prompt=PROMPT, stream=True, partial_images=2, extra_body=EXTRA)
        return opened(list(made)[-1].b64_json)


def openai_async(server):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await client.images.generate(prompt=PROMPT, extra_body=EXTRA)

    return opened(asyncio.run(ask()).data[0].b64_json)


def azure(server):
    where = {"azure_endpoint": server.url, "api_version": "2025-04-01-preview", "api_key": "none"}
    with openai.AzureOpenAI(**where) as client:
        made = client.images.generate(model="scenes", prompt=PROMPT, extra_body=EXTRA)
    return opened(made.data[0].b64_json)


def huggingface(server):
    with huggingface_hub.InferenceClient(base_url=f"{server.url}/models/scenes") as client:
        return client.text_to_image(PROMPT, seed=SEED, num_inference_steps=STEPS, guidance_scale=SCALE)


def huggingface_async(server):
    async def ask():
        async with huggingface_hub.AsyncInferenceClient(base_url=server.url) as client:
            return await client.text_to_image(
                PROMPT, seed=SEED, num_inference_steps=STEPS, guidance_scale=SCALE
            )

    return asyncio.run(ask())


def automatic1111(server):
    api = webuiapi.WebUIApi(host="127.0.0.1", port=server.port)
    made = api.txt2img(
        prompt=PROMPT,
        seed=SEED,
        steps=STEPS,
        cfg_scale=SCALE,
        sampler_name=own_sampler(),
        width=128,
        height=128,
    )
    api.session.close()
    return made.image


def own_sampler():
    return {"ddim": "DDIM", "euler": "Euler", "dpmpp_2m": "DPM++ 2M"}[
        TextToImage.from_preset("scenes").generate("", num_steps=1).request.sampler
    ]


def our_pictura(server):
    model = TextToImage.from_preset(f"{server.url}#scenes", api="pictura")
    return model.generate(PROMPT, seed=SEED, num_steps=STEPS, guidance_scale=SCALE).image


def our_huggingface(server):
    model = TextToImage.from_preset(f"{server.url}/models/scenes", api="huggingface")
    return model.generate(PROMPT, seed=SEED, num_steps=STEPS, guidance_scale=SCALE).image


def our_automatic1111(server):
    model = TextToImage.from_preset(f"{server.url}#scenes", api="a1111")
    picture = model.generate(PROMPT, seed=SEED, num_steps=STEPS, guidance_scale=SCALE)
    assert picture.request.size == (128, 128)  # read back from the infotext
    return picture.image


CLIENTS = [
    native, openai_base64, openai_url, openai_webp, openai_stream, openai_async, azure, huggingface,
    huggingface_async, automatic1111, our_pictura, our_huggingface, our_automatic1111,
]  # fmt: skip


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_the_same_pixels_everywhere(server, expected, client):
    assert np.array_equal(np.asarray(client(server).convert("RGB")), expected)


def test_the_same_pixels_all_at_once(server, expected):
    found = together(lambda client: np.asarray(client(server).convert("RGB")), CLIENTS)
    wrong = [
        client.__name__
        for client, pixels in zip(CLIENTS, found, strict=True)
        if not np.array_equal(pixels, expected)
    ]
    assert not wrong


def test_our_provider_for_openai(server, scenes):
    """A seed is all that it may say beyond the API."""
    model = TextToImage.from_preset(f"{server.url}/v1#scenes", api="openai")
    pictures = model.generate([PROMPT, "two stars"], seed=SEED, size="128x128")
    assert np.array_equal(pictures, scenes.generate([PROMPT, "two stars"], seed=SEED))
    assert [picture.request.seed for picture in model.generate(PROMPT, num_images=2, seed=4)] == [4, 5]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["openai", "huggingface"])
def test_the_stock_classes_of_distilabel(server, scenes, kind):
    """They know no seeds: the one that was drawn is in the picture, or on its way to JPEG lost."""
    from distilabel.models.image_generation import (
        InferenceEndpointsImageGeneration,
        OpenAIImageGeneration,
    )

    if kind == "openai":
        model = OpenAIImageGeneration(model="scenes", base_url=f"{server.url}/v1", api_key="none")
    else:
        model = InferenceEndpointsImageGeneration(base_url=f"{server.url}/models/scenes", api_key="none")
    model.load()
    rows = model.generate_outputs(inputs=["a cat", "a star"])
    for prompt, row in zip(["a cat", "a star"], rows, strict=True):
        content = base64.b64decode(row[0]["images"][0])
        if kind == "openai":
            request = metadata_of(content).request
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), scenes.generate(request))
            assert request.prompt == prompt
        else:
            assert Image.open(io.BytesIO(content)).size == (128, 128)
            items = server.get("/api/images", params={"query": prompt, "limit": 1}).json()["items"]
            kept = Image.open(io.BytesIO(server.get(items[0]["url"]).content)).convert("RGB")
            shown = Image.open(io.BytesIO(content)).convert("RGB")
            assert np.abs(np.asarray(kept).astype(int) - np.asarray(shown)).mean() < 8
    del model
    gc.collect()  # it leaves its connections to be found: here, where that is no error


LITELLM = """
import asyncio, json, sys, litellm
base, prompt, extra = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
common = dict(model="openai/scenes", api_base=base, api_key="none", prompt=prompt)
made = litellm.image_generation(**common, **extra)
more = dict(n=2, size="128x128", extra_headers={"a": "b"})
later = asyncio.run(litellm.aimage_generation(**common, **more, **extra))
try:
    litellm.image_generation(**common, size="96x96")
    said = "nothing"
except litellm.BadRequestError as error:
    said = f"{error.status_code} {error}"
print(json.dumps({"images": [i.b64_json for i in made.data + later.data], "said": said}))
"""


@pytest.mark.slow
def test_litellm(server, expected, tmp_path):
    """It holds an older openai, so it is installed into an environment of its own."""
    place = tmp_path / "litellm"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    pins = HERE.parent / "clients" / "litellm.txt"
    subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", pins], check=True
    )
    done = subprocess.run(
        [python, "-c", LITELLM, f"{server.url}/v1", PROMPT, json.dumps(EXTRA)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    pixels = [np.asarray(opened(image).convert("RGB")) for image in found["images"]]
    assert len(pixels) == 3 and np.array_equal(pixels[0], expected) and np.array_equal(pixels[1], expected)
    assert found["said"].startswith("400 ") and "128x128" in found["said"]
    page = HERE.parents[1] / "docs" / "clients" / "litellm.md"
    subprocess.run([python, "-c", script(page, server.port)], check=True)
