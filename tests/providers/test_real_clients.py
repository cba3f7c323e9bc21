"""Our requests beside those of the services' own clients, caught by the same server."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standins import STANDINS

from loopback import SECRET, Loopback, b64, png
from pictura import TextToImage
from pictura.providers._bodies import from_base64
from pictura.providers._calls import Call
from pictura.providers._images import decoded
from pictura.providers._sigv4 import signed

PROMPT = "a cat — é 猫"


def picture(asked):
    return {"created": 1, "data": [{"b64_json": b64()}] * 1}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"size": "640x384"},
        {"size": "640x384", "quality": "high", "background": "opaque", "moderation": "low"},
        {"output_format": "webp", "output_compression": 50, "style": "vivid", "response_format": "b64_json"},
    ],
)
def test_openai_generations(fields):
    import openai

    with Loopback(picture) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=SECRET)
        client.images.generate(model="m", prompt=PROMPT, **fields)
        TextToImage.from_preset(f"openai+{server.url}/v1#m", api_key=SECRET).generate(PROMPT, **fields)
    theirs, ours = server.asked
    assert ours.json == theirs.json
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    for name in ("authorization", "content-type", "accept"):
        assert ours.headers[name] == theirs.headers[name]


def test_openai_several_and_streamed():
    import openai

    with STANDINS["openai"].serve() as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=SECRET)
        ours = TextToImage.from_preset(f"openai+{server.url}/v1#m", api_key=SECRET)
        client.images.generate(model="m", prompt=PROMPT, n=3)
        ours.generate(PROMPT, num_images=3)
        events = list(client.images.generate(model="m", prompt=PROMPT, stream=True, partial_images=1))
        told = list(ours.stream(PROMPT, previews=True, partial_images=1))
    assert server.asked[0].json == server.asked[1].json
    assert server.asked[2].json == server.asked[3].json
    assert len(events) == len(told) == 2


def test_openai_edits(tmp_path):
    import openai

    (tmp_path / "in.png").write_bytes(png())
    with Loopback(picture) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=SECRET)
        with (tmp_path / "in.png").open("rb") as image:
            client.images.edit(model="m", prompt=PROMPT, image=image, size="16x8", quality="low")
        ours = TextToImage.from_preset(f"openai+{server.url}/v1#m", api_key=SECRET)
        ours.generate(PROMPT, image=str(tmp_path / "in.png"), size="16x8", quality="low")
    theirs, mine = (asked.form for asked in server.asked)
    assert mine.pop("image").startswith(b"\x89PNG") and theirs.pop("image") == png()
    assert mine == theirs
    assert server.asked[0].path == server.asked[1].path


def test_azure():
    import openai

    with STANDINS["azure"].serve() as server:
        client = openai.AzureOpenAI(
            azure_endpoint=server.url, api_key=SECRET, api_version="2025-04-01-preview",
            azure_deployment="dep",
        )  # fmt: skip
        client.images.generate(model="dep", prompt=PROMPT, size="16x8")
        TextToImage.from_preset(f"azure+{server.url}#dep", api_key=SECRET).generate(PROMPT, size="16x8")
    theirs, ours = server.asked
    assert ours.path == theirs.path and ours.json == theirs.json
    assert ours.headers["api-key"] == theirs.headers["api-key"] == SECRET
    assert "authorization" not in ours.headers


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_huggingface_endpoint(kind, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)

    fields = {"negative_prompt": "dog", "height": 384, "width": 640, "num_inference_steps": 4,
              "guidance_scale": 3.5, "seed": 7}  # fmt: skip
    with STANDINS["huggingface"].serve() as server:
        if kind == "sync":
            client = huggingface_hub.InferenceClient(base_url=f"{server.url}/m", token=SECRET)
            client.text_to_image(PROMPT, **fields)
        else:

            async def ask():
                where = {"base_url": f"{server.url}/m", "token": SECRET}
                async with huggingface_hub.AsyncInferenceClient(**where) as client:
                    await client.text_to_image(PROMPT, **fields)

            asyncio.run(ask())
        remote = TextToImage.from_preset(f"{server.url}/m", api="huggingface", api_key=SECRET)
        remote.generate(
            PROMPT, negative_prompts="dog", size="640x384", num_steps=4, guidance_scale=3.5, seed=7
        )
    theirs, ours = server.asked
    assert ours.json == theirs.json and ours.path == theirs.path == "/m"
    for name in ("authorization", "content-type", "accept"):
        assert ours.headers[name] == theirs.headers[name]


@pytest.mark.parametrize("provider", ["fal-ai", "replicate", "together", "nscale", "wavespeed", "zai-org"])
def test_huggingface_routes(provider):
    """Path and body are those that the hub's own helpers prepare."""
    from huggingface_hub.hf_api import InferenceProviderMapping
    from huggingface_hub.inference._providers import PROVIDERS

    helper = PROVIDERS[provider]["text-to-image"]
    names = {"provider": provider, "providerId": "acme/flux", "hf_model_id": "org/m"}
    mapping = InferenceProviderMapping(**names, task="text-to-image", status="live")
    fields = {"height": 384, "width": 640, "seed": 7}
    body = helper._prepare_payload_as_dict(PROMPT, dict(fields), mapping)
    path = helper._prepare_route("acme/flux", "hf_key")

    def answer(asked):
        if asked.path.startswith("/api/models/"):
            known = {"providerId": "acme/flux", "task": "text-to-image"}
            return {"inferenceProviderMapping": {provider: known}}
        if asked.path == "/picture.png":
            return png()
        done = {"status": "completed", "outputs": [f"{server.url}/picture.png"]}
        done |= {"urls": {"get": "https://elsewhere.example/api/v3/predictions/1/result"}}
        if asked.method == "GET":
            return {"data": done, "task_status": "SUCCESS", "image_result": [{"url": "/picture.png"}]}
        if provider in ("together", "nscale"):
            return picture(asked)
        return {"images": [{"url": f"{server.url}/picture.png"}], "output": [f"{server.url}/picture.png"],
                "data": {**done, "status": "created"}, "task_status": "PROCESSING", "id": "t1"}  # fmt: skip

    with Loopback(answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", server.url)
        remote = TextToImage.from_preset(
            "hf-inference://org/m", base_url=server.url, api_key=SECRET, provider=provider
        )
        remote.generate(PROMPT, size="640x384", seed=7)
        remote.generate(PROMPT, size="640x384", seed=7)
    asks = [asked for asked in server.asked if asked.path.startswith("/api/models/")]
    assert len(asks) == 1  # which model it is there is asked once
    ours = server.asked[1]
    assert ours.path == f"/{provider}{path}" and ours.json == body
    fetched = [asked for asked in server.asked if asked.path == "/picture.png"]
    assert len(fetched) == (0 if provider in ("together", "nscale") else 2)


# Signatures of Amazon's services

KEY = {"access": "AKIDEXAMPLE", "secret": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "region": "us-east-1"}
THEN = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


@pytest.mark.parametrize(
    ("method", "signature"),
    [
        ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ],
)
def test_signatures_are_those_of_the_published_examples(method, signature):
    plain = Call(method, "https://example.amazonaws.com/")
    call = signed(plain, **KEY, token=None, service="service", now=THEN)
    assert call.headers["authorization"].endswith(f"SignedHeaders=host;x-amz-date, Signature={signature}")


@pytest.mark.parametrize("model", ["black-forest-labs/flux-schnell", "somebody/dream:" + 64 * "a"])
def test_replicate(model):
    from replicate.client import Client

    known = {"num_inference_steps": 4, "guidance_scale": 3.5, "seed": 7, "width": 640, "height": 384}
    known |= {"prompt": PROMPT, "go_fast": True}
    with STANDINS["replicate"].serve() as server:
        client = Client(api_token=SECRET, base_url=server.url)
        name, _, version = model.partition(":")
        if version:
            prediction = client.predictions.create(version=version, input=known, wait=True)
        else:
            prediction = client.models.predictions.create(name, input=known, wait=True)
        prediction.wait()
        client._client.close()
        remote = TextToImage.from_preset(f"{server.url}/v1#{model}", api="replicate", api_key=SECRET)
        ours = remote.generate(PROMPT, num_steps=4, guidance_scale=3.5, seed=7, size=(640, 384), go_fast=True)
    assert prediction.status == "succeeded" and prediction.output == [f"{server.url}/files/7.png"]
    assert ours.request.seed == 7
    asked = [each for each in server.asked if each.method == "POST"]
    assert len(asked) == 2 and asked[0].json == asked[1].json
    assert asked[0].path == asked[1].path
    for header in ("authorization", "content-type", "prefer"):
        assert asked[0].headers[header] == asked[1].headers[header]


def test_together():
    from together import Together

    wanted = {"guidance_scale": 3.5, "seed": 7, "negative_prompt": "fog", "width": 640, "height": 384}
    with STANDINS["together"].serve() as server:
        with Together(api_key=SECRET, base_url=server.url) as client:
            theirs = client.images.generate(
                model="m", prompt=PROMPT, steps=4, response_format="base64", output_format="png", **wanted
            )
        remote = TextToImage.from_preset(f"{server.url}#m", api="together", api_key=SECRET)
        more = {"guidance_scale": 3.5, "seed": 7, "negative_prompts": "fog", "size": (640, 384)}
        ours = remote.generate(PROMPT, num_steps=4, output_format="png", **more)
    assert decoded(from_base64(theirs.data[0].b64_json)).tobytes() == ours.image.tobytes()
    assert server.asked[0].json == server.asked[1].json
    assert (server.asked[0].method, server.asked[0].path) == (server.asked[1].method, server.asked[1].path)
    for name in ("authorization", "content-type"):
        assert server.asked[0].headers[name] == server.asked[1].headers[name]


# What clients sent that are not installed here, recorded on loopback, each with its version

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())


def sent_by(client, call=""):
    return [
        each for each in RECORDED if each["client"].startswith(f"{client} ") and each["call"].startswith(call)
    ]


def test_fal():
    submitted, status, result, cancelled, at_once = sent_by("fal-client")
    more = {"size": (640, 384), "num_steps": 4, "guidance_scale": 3.5, "seed": 7, "negative_prompts": "fog"}
    with STANDINS["fal"].serve() as server:
        STANDINS["fal"].open("fal", server, api_key=SECRET).generate(PROMPT, **more)
        provider = STANDINS["fal"].open("fal", server).provider
    ours, *looks, found, _ = server.asked
    assert (ours.method, ours.path, ours.json) == ("POST", submitted["path"], json.loads(submitted["body"]))
    assert {(look.method, look.path) for look in looks} == {("GET", status["path"].partition("?")[0])}
    assert (found.method, found.path) == ("GET", result["path"])
    assert cancelled["method"] == "PUT" and json.loads(at_once["body"]) == ours.json
    for asked in (ours, *looks, found):
        assert asked.headers["authorization"] == submitted["headers"]["authorization"].replace("KEY", SECRET)
    assert ours.headers["content-type"] == submitted["headers"]["content-type"]
    assert provider.base.startswith("https://queue.fal.run")


def test_gemini(tmp_path):
    plain, edit = sent_by("google-genai")
    (tmp_path / "in.png").write_bytes(png())
    with STANDINS["google"].serve() as server:
        base = f"{server.url}/v1"
        model = TextToImage.from_preset("google://gemini-2.5-flash-image", base_url=base, api_key=SECRET)
        model.generate(PROMPT, aspect_ratio="16:9")
        model.generate(PROMPT, image=str(tmp_path / "in.png"))
    for ours, theirs in zip(server.asked, (plain, edit), strict=True):
        assert (ours.method, ours.path) == (theirs["method"], theirs["path"])
        assert ours.headers["x-goog-api-key"] == theirs["headers"]["x-goog-api-key"].replace("KEY", SECRET)
        assert ours.headers["content-type"] == theirs["headers"]["content-type"]
        body = ours.json
        for part in body["contents"][0]["parts"]:
            if "inlineData" in part:
                assert from_base64(part["inlineData"]["data"]).startswith(b"\x89PNG")
                part["inlineData"] = {"data": "UE5H", "mime_type": part["inlineData"]["mimeType"]}
        assert body == json.loads(theirs["body"])


@pytest.mark.parametrize(
    "theirs", sent_by("boto3"), ids=lambda each: f"{each['path'].split('/')[2]} {each['call']}"
)
def test_bedrock(theirs):
    """The same address and body, and over the same bytes at the same second the same signature."""
    body, headers = json.loads(theirs["body"]), theirs["headers"]
    token = headers.get("x-amz-security-token")
    parts = [KEY["access"], KEY["secret"], *([token] if token else [])]
    amazon = "amazon" in theirs["path"]
    more = {"negative_prompts": "fog", "seed": 7, "size": (640, 384) if amazon else (1344, 756)}
    model = "amazon.nova-canvas-v1:0" if amazon else "stability.sd3-5-large-v1:0"
    with Loopback(lambda asked: {"images": [b64()]}) as server:
        ours = TextToImage.from_preset(
            f"bedrock://{model}", base_url=server.url, api_key=":".join(parts), region="eu-west-1"
        )
        ours.generate(PROMPT, **more, **({"guidance_scale": 3.5} if amazon else {}))
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.json) == ("POST", theirs["path"], body)
    assert asked.headers.get("x-amz-security-token") == token
    assert asked.headers["accept"] == headers["accept"] == asked.headers["content-type"]
    then = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    covered = {name: headers[name] for name in ("accept", "content-type")}
    url, content = f"http://{headers['host']}{theirs['path']}", theirs["body"].encode()
    call = Call("POST", url, covered, content=content)
    again = signed(call, **{**KEY, "region": "eu-west-1"}, token=token, service="bedrock", now=then)
    assert again.headers["authorization"] == headers["authorization"]
