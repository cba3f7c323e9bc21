"""OpenAI's own client, and bodies as others write them, against a real server."""

from __future__ import annotations

import asyncio
import base64
import io

import httpx2
import numpy as np
import openai
import pytest
from PIL import Image

from pictura.picture.metadata import metadata_of

QUICK = {"num_steps": 3}


def opened(item) -> Image.Image:
    content = base64.b64decode(item.b64_json) if item.b64_json else httpx2.get(item.url).content
    return Image.open(io.BytesIO(content))


def pixels(item) -> np.ndarray:
    return np.asarray(opened(item).convert("RGB"))


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


@pytest.fixture(scope="module")
def cat(scenes):
    return np.asarray(scenes.generate("a cat", seed=7, num_steps=3))


def jobs(server, **more):
    return server.get("/api/jobs", params={"limit": 100, **more}).json()["items"]


def test_the_smallest_call(client):
    made = client.images.generate(prompt="a star", extra_body=QUICK)
    (item,) = made.data
    assert opened(item).size == (128, 128) and made.size == "128x128" and made.output_format == "png"
    assert made.created > 1_700_000_000 and made.usage.total_tokens == 0
    assert isinstance(item.seed, int)


def test_the_pixels_are_ours(client, cat):
    made = client.images.generate(prompt="a cat", model="scenes", extra_body={"seed": 7, **QUICK})
    assert np.array_equal(pixels(made.data[0]), cat)


def test_nulls_are_absent_and_unknown_fields_do_not_matter(client, cat):
    extra = {
        "seed": 7.0,
        "steps": 3.0,
        "extra_headers": {"a": "b"},
        "frame_count": 3,
        "negative_prompt": None,
    }
    made = client.images.generate(
        prompt="a cat", model=None, n=None, size=None, style=None, quality="standard", extra_body=extra
    )
    assert np.array_equal(pixels(made.data[0]), cat)
    assert made.ignored == ["quality"]


def test_addresses_are_readable_without_a_key_and_several_have_seeds_in_a_row(client, server, cat):
    made = client.images.generate(
        prompt="a cat", n=2, response_format="url", size="auto", extra_body={"seed": 6, **QUICK}
    )
    assert [item.seed for item in made.data] == [6, 7]
    assert all(item.url.startswith(f"{server.url}/images/") and item.b64_json is None for item in made.data)
    assert np.array_equal(pixels(made.data[1]), cat)


def test_addresses_are_the_callers(server):
    for host, scheme in (("localhost", "http"), ("127.0.0.1", "https")):
        headers = {"host": f"{host}:{server.port}", "x-forwarded-proto": scheme}
        body = {"prompt": "a cat", "response_format": "url", "num_steps": 1}
        made = server.request("POST", "/v1/images/generations", json=body, headers=headers).json()
        assert made["data"][0]["url"].startswith(f"{scheme}://{host}:{server.port}/images/")


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("kind", ["url", "b64_json"])
def test_formats(client, cat, form, kind):
    sizes = []
    for compression in (None, 10):
        made = client.images.generate(
            prompt="a cat", output_format=form, output_compression=compression, response_format=kind,
            extra_body={"seed": 7, **QUICK},
        )  # fmt: skip
        (item,) = made.data
        content = base64.b64decode(item.b64_json) if kind == "b64_json" else httpx2.get(item.url).content
        image = Image.open(io.BytesIO(content))
        assert image.format == form.upper() and made.output_format == form
        assert metadata_of(content).request.seed == 7
        difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - cat).mean()
        assert difference < (12 if compression else 3)
        sizes.append(len(content))
    assert form == "png" or sizes[1] < sizes[0] / 2


def test_a_stream(client, cat):
    events = list(
        client.images.generate(
            prompt="a cat", stream=True, partial_images=3, extra_body={"seed": 7, "num_steps": 60}
        )
    )
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed" and set(kinds[:-1]) == {"image_generation.partial_image"}
    partial = events[:-1]
    assert 1 <= len(partial) <= 3
    assert [event.partial_image_index for event in partial] == list(range(len(partial)))
    assert all(opened(event).size == (128, 128) for event in partial)
    done = events[-1]
    assert done.size == "128x128" and done.seed == 7 and done.usage.total_tokens == 0
    assert done.created_at > 1_700_000_000 and done.output_format == "png"


def test_a_stream_without_previews_of_two_jpegs(client, scenes):
    events = list(
        client.images.generate(
            prompt="a cat", stream=True, n=2, output_format="jpeg", extra_body={"seed": 6, **QUICK}
        )
    )
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert {event.seed for event in events} == {6, 7}
    assert all(opened(event).format == "JPEG" for event in events)


def test_errors_in_streams(client):
    with pytest.raises(openai.APIError, match="128x128") as caught:
        list(client.images.generate(prompt="a cat", size="96x96", stream=True))
    assert type(caught.value) is openai.APIError and caught.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        client.images.generate(prompt="a cat", model="nothing", stream=True)


def test_the_asynchronous_client(server, cat):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1/", api_key="none", max_retries=0) as client:
            whole = client.images.generate(prompt="a cat", extra_body={"seed": 7, **QUICK})
            stream = await client.images.generate(
                prompt="a cat", stream=True, partial_images=1, extra_body={"seed": 7, **QUICK}
            )
            return (await whole).data[0], [event async for event in stream][-1]

    for item in asyncio.run(ask()):
        assert np.array_equal(pixels(item), cat)


@pytest.mark.parametrize(
    ("body", "kind", "words", "param"),
    [
        ({"size": "96x96"}, openai.BadRequestError, "128x128", "size"),
        ({"size": "large"}, openai.BadRequestError, "WIDTHxHEIGHT", "size"),
        ({"n": 0}, openai.BadRequestError, "n is 0", "n"),
        ({"n": 10**6}, openai.BadRequestError, "1..100", "n"),
        ({"response_format": "svg"}, openai.BadRequestError, "b64_json, url", "response_format"),
        ({"output_format": "gif"}, openai.BadRequestError, "png, jpeg, webp", "output_format"),
        ({"partial_images": 9}, openai.BadRequestError, "0..3", "partial_images"),
        ({"seed": -1}, openai.BadRequestError, "seed", "seed"),
        ({"seed": "7"}, openai.BadRequestError, "seed", "seed"),
        ({"num_steps": 2.5}, openai.BadRequestError, "num_steps", "num_steps"),
        ({"sampler": "eular"}, openai.BadRequestError, "euler", "sampler"),
        ({"options": {"eta": "much"}}, openai.BadRequestError, "eta", "eta"),
        ({"options": {"image": {"path": "/etc/passwd"}}}, openai.BadRequestError, "path", "options"),
        ({"prompt": None}, openai.BadRequestError, "no prompt", "prompt"),
        ({"prompt": ["a"]}, openai.BadRequestError, "prompt", "prompt"),
        ({"model": "nothing"}, openai.NotFoundError, "scenes", None),
    ],
)
def test_errors(client, body, kind, words, param):
    with pytest.raises(kind, match=words) as caught:
        client.images.generate(prompt="a cat", extra_body=body)
    assert caught.value.param == param and caught.value.type == "invalid_request_error"
    assert caught.value.request_id and str(caught.value).startswith(
        f"Error code: {caught.value.status_code} - "
    )


def test_models(client):
    listed = client.models.list().data
    assert listed[0].id == "scenes" and listed[0].owned_by == "pictura" and listed[0].created > 1_700_000_000
    assert client.models.retrieve("scenes").id == "scenes"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nothing")
    assert caught.value.code == "model_not_found"


def test_azure(server, cat):
    client = openai.AzureOpenAI(
        azure_endpoint=server.url, api_key="none", api_version="2025-04-01-preview",
        azure_deployment="scenes", max_retries=0,
    )  # fmt: skip
    with client:
        made = client.images.generate(prompt="a cat", model="scenes", extra_body={"seed": 7, **QUICK})
    assert np.array_equal(pixels(made.data[0]), cat)


@pytest.mark.parametrize("path", ["/v1/images/generations/", "/v1/images/generations"])
def test_a_slash_at_the_end_and_envelopes_of_every_error(server, path):
    answer = server.request("POST", path, json={"prompt": "a cat", "num_steps": 1})
    assert answer.status_code == 200 and not answer.history
    for made in (
        server.request("POST", path, content=b"{"),
        server.request("POST", path, content=b'{"prompt": "a", "guidance_scale": 1e999}'),
        server.get(path),
        server.get("/v1/nothing"),
    ):
        error = made.json()["error"]
        assert made.status_code in (400, 404, 405) and set(error) == {"message", "type", "param", "code"}
        assert error["message"] and made.headers["x-request-id"]
