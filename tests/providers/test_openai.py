"""OpenAI Images: what is sent, every form of answer, streaming, edits; against a real server on loopback."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from PIL import Image

from loopback import SECRET, Answer, Loopback, b64, png
from pictura import Failure, ParameterError, Picture, Preview, ProviderError, TextToImage


def model(server, name="gpt-image-1", **settings):
    settings = {"api_key": SECRET, "timeout": (2, 5, 10), **settings}
    return TextToImage.from_preset(f"openai://{name}", base_url=f"{server.url}/v1", **settings)


def data(*entries):
    return {"created": 1, "data": list(entries)}


def test_what_is_sent_and_what_comes_back(tmp_path):
    with Loopback(lambda asked: data({"b64_json": b64(), "revised_prompt": "a fine cat"})) as server:
        picture = model(server).generate("a cat — é", size="16x8", quality="high", seed=7)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/v1/images/generations")
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["content-type"] == "application/json"
    assert asked.json == {
        "model": "gpt-image-1", "prompt": "a cat — é", "size": "16x8", "quality": "high", "seed": 7
    }  # fmt: skip
    assert "é".encode() in asked.content  # not escaped
    assert np.asarray(picture)[0, 0].tolist() == [10, 100, 200]
    assert picture.notes == ("revised prompt: a fine cat",)
    assert picture.request.model == f"openai+{server.url}/v1#gpt-image-1"
    assert picture.request.seed == 7 and picture.request.options == {"quality": "high"}
    kept = Picture.open(picture.save(tmp_path / "cat.png"))
    assert kept.request == picture.request and kept.notes == picture.notes
    again = TextToImage.from_preset(kept.request.model, api_key=SECRET)  # replay finds the service
    assert again.provider.base_url == f"{server.url}/v1" and again.provider.model == "gpt-image-1"


def test_several_pictures_are_one_call_and_keep_their_order():
    colours = [(index, 0, 0) for index in range(10)]

    def answer(asked):
        count = asked.json.get("n", 1)
        return data(*({"b64_json": b64(colours[index])} for index in range(count)))

    with Loopback(answer) as server:
        pictures = model(server).generate("a cat", num_images=12)
    assert sorted(body.get("n", 1) for body in server.bodies()) == [2, 10]
    assert [np.asarray(p)[0, 0, 0] for p in pictures] == [*range(10), 0, 1]


def test_own_seeds_are_own_calls():
    with Loopback(lambda asked: data({"b64_json": b64((asked.json["seed"], 0, 0))})) as server:
        pictures = model(server).generate(["a", "b"], num_images=2, seed=3)
    assert [p.request.seed for p in pictures] == [3, 4, 5, 6]
    assert [np.asarray(p)[0, 0, 0] for p in pictures] == [3, 4, 5, 6]
    assert all("n" not in body for body in server.bodies())


def test_pictures_by_address_are_fetched_at_once():
    def answer(asked):
        if asked.method == "GET":
            return Answer(body=png((1, 2, 3), kind="JPEG"), headers={"content-type": "image/jpeg"})
        return data({"url": f"{server.url}/files/1.jpg"}, {"url": "/files/2.jpg"})

    with Loopback(answer) as server:
        pictures = model(server).generate("a cat", num_images=2)
    assert len(pictures) == 2
    assert sorted(asked.path for asked in server.asked[1:]) == ["/files/1.jpg", "/files/2.jpg"]


def events(*bodies, done=True):
    lines = [f"data: {json.dumps(body)}\n\n".encode() for body in bodies]
    return Answer(body=iter([*lines, *([b"data: [DONE]\n\n"] if done else [])]),
                  headers={"content-type": "text/event-stream"})  # fmt: skip


def partial(index, colour):
    return {"type": "image_generation.partial_image", "partial_image_index": index, "b64_json": b64(colour)}


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_previews_stream(driver):
    def answer(asked):
        assert asked.json["stream"] is True and asked.json["partial_images"] == 2
        completed = {"type": "image_generation.completed", "b64_json": b64((9, 9, 9))}
        return events(partial(0, (1, 1, 1)), partial(1, (2, 2, 2)), completed)

    async def collected(stream):
        return [event async for event in stream]

    with Loopback(answer) as server:
        remote = model(server)
        if driver == "sync":
            told = list(remote.stream("a cat", previews=True))
        else:
            told = asyncio.run(collected(remote.astream("a cat", previews=True)))
    assert [type(event) for event in told] == [Preview, Preview, Picture]
    assert [(p.step, p.image.getpixel((0, 0))) for p in told[:2]] == [(1, (1, 1, 1)), (2, (2, 2, 2))]
    assert np.asarray(told[2])[0, 0].tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    ("bodies", "words"),
    [
        ([partial(0, (1, 1, 1)), {"error": {"message": "out of ink"}}], "out of ink"),
        ([partial(0, (1, 1, 1)), {"type": "error", "message": "out of ink"}], "out of ink"),
    ],
)
def test_errors_inside_a_stream(bodies, words):
    with Loopback(lambda asked: events(*bodies)) as server:
        told = list(model(server, max_retries=0).stream("a cat", previews=True))
    assert isinstance(told[-1], Failure) and words in str(told[-1].error)


def test_a_stream_that_ends_early_is_asked_for_again():
    """With the same body and idempotency key, so that a service that knows them draws nothing twice."""
    whole = events({"type": "image_generation.completed", "b64_json": b64()})

    def answer(asked):
        return events(partial(0, (1, 1, 1)), done=False) if len(server.asked) == 1 else whole

    with Loopback(answer) as server:
        told = list(model(server).stream("a cat", previews=True))
    first, second = server.asked
    assert isinstance(told[-1], Picture) and first.content == second.content
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    with Loopback(lambda asked: events(partial(0, (1, 1, 1)), done=False)) as server:
        told = list(model(server, max_retries=0).stream("a cat", previews=True))
    assert isinstance(told[-1], Failure) and len(server.asked) == 1


def test_a_server_that_does_not_stream():
    with Loopback(lambda asked: data({"b64_json": b64()})) as server:
        told = list(model(server).stream("a cat", previews=True))
    assert [type(event) for event in told] == [Picture]


def test_edits_are_a_form(tmp_path):
    Image.new("RGB", (16, 8), "red").save(tmp_path / "in.png")
    Image.new("L", (16, 8), 255).save(tmp_path / "mask.png")
    with Loopback(lambda asked: data({"b64_json": b64()})) as server:
        remote = model(server)
        picture = remote.generate(
            "a hat", image=str(tmp_path / "in.png"), mask=Image.open(tmp_path / "mask.png"), size="16x8"
        )
        with pytest.raises(ParameterError, match="give image too"):
            remote.generate("a hat", mask=str(tmp_path / "mask.png"))
    (asked,) = server.asked
    assert asked.path == "/v1/images/edits"
    form = asked.form
    assert form["prompt"] == b"a hat" and form["size"] == b"16x8" and form["image"].startswith(b"\x89PNG")
    assert set(form) == {"model", "prompt", "size", "image", "mask"}
    assert picture.request.options["image"]["path"] == str(tmp_path / "in.png")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, "without a picture"),
        ({"data": None}, "without a picture"),
        ([], "an object was expected"),
        (Answer(body=b"<html>", headers={"content-type": "text/html"}), "not JSON"),
        (Answer(body=b'{"data": [', headers={"content-type": "application/json"}), "not JSON"),
        (data({"b64_json": "!!!"}), "damaged base64"),
        (data({"b64_json": "PGh0bWw+"}), "web page in place of a picture"),
        (data({"url": 7}), "no address"),
        (data({"url": "file:///etc/passwd"}), "no http address"),
        (Answer(400, {"error": {"message": "bad size", "param": "size"}}), "refused with 400: bad size"),
        (Answer(401, {"error": {"message": f"bad key {SECRET}"}}), r"bad key \*\*\*; check the key"),
        (Answer(401, {"error": {"message": "bad key: sk-nev****6789."}}), r"bad key: \*\*\*"),
    ],
)
def test_answers_that_are_no_picture(answer, words):
    with Loopback(lambda asked: answer) as server, pytest.raises(ProviderError, match=words) as caught:
        model(server, max_retries=0).generate("a cat")
    assert SECRET not in str(caught.value) and "\n" not in str(caught.value)


def test_the_service_itself_takes_no_seed(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    remote = TextToImage.from_preset("openai://any-model")
    assert remote.provider.base_url == "https://api.openai.com/v1" and remote.name == "openai://any-model"
    with pytest.raises(ParameterError, match="cannot use seed"):
        remote.stream("a cat", seed=1)
    with pytest.raises(ParameterError, match="cannot use num_steps"):
        remote.stream("a cat", num_steps=1)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ParameterError, match="OPENAI_API_KEY"):
        TextToImage.from_preset("openai://any-model")


def test_what_is_ignored_is_said():
    with Loopback(lambda asked: data({"b64_json": b64()})) as server:
        picture = model(server).generate("a cat", num_steps=3, strict=False, size="auto")
    assert picture.ignored == ("num_steps",) and "num_steps" not in server.bodies()[0]
    assert "size" not in server.bodies()[0] and picture.request.size == (16, 8)


def test_what_shapes_the_words_is_not_sent():
    with Loopback(lambda asked: data({"b64_json": b64()})) as server:
        picture = model(server).generate("a {cat|dog}")
    (body,) = server.bodies()
    assert set(body) == {"model", "prompt"} and body["prompt"] == picture.request.prompt
    assert picture.request.options["template"] == "a {cat|dog}"
