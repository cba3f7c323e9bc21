"""What all providers keep to, against their stand-ins on loopback."""

from __future__ import annotations

import asyncio
import logging

import pytest
from standins import SIZE, STANDINS, seed_of

from loopback import SECRET, Answer, Loopback, png
from pictura import Failure, ParameterError, Picture, Pictures, ProviderError, Step, providers

pytestmark = pytest.mark.parametrize("name", STANDINS)


def test_every_provider_has_a_stand_in(name):
    assert set(STANDINS) == set(providers.names())


@pytest.mark.parametrize("how", ["generate", "agenerate"])
def test_pictures_come_back_with_their_requests(name, how, tmp_path):
    with STANDINS[name].serve() as server:
        model = STANDINS[name].open(name, server)
        seeded = "seed" in model.provider.parameters
        more = {"seed": 3} if seeded else {}
        if how == "generate":
            pictures = model.generate(["a cat", "a dog"], num_images=2, **more)
        else:
            pictures = asyncio.run(model.agenerate(["a cat", "a dog"], num_images=2, **more))
    assert isinstance(pictures, Pictures) and len(pictures) == 4
    assert [p.request.prompt for p in pictures] == ["a cat", "a cat", "a dog", "a dog"]
    for index, picture in enumerate(pictures):
        assert picture.image.size == SIZE and picture.request.model == model.name
        assert picture.request.size == SIZE or "size" not in model.provider.parameters
        if seeded:
            assert picture.request.seed == 3 + index and seed_of(picture) == 3 + index
        kept = Picture.open(picture.save(tmp_path / f"{index}.png"))
        assert kept.request == picture.request and kept.notes == picture.notes


def test_one_failure_leaves_its_neighbours(name):
    standin = STANDINS[name]

    def answer(asked):
        if b"forbidden" in asked.content:
            return Answer(400, {"error": {"message": "forbidden word"}})
        return standin.answer(asked, server)

    with Loopback(answer) as server:
        model = standin.open(name, server)
        told = list(model.stream(["a cat", "forbidden", "a dog"]))
    pictures = [event for event in told if isinstance(event, Picture)]
    (failure,) = [event for event in told if isinstance(event, Failure)]
    assert {p.request.prompt for p in pictures} == {"a cat", "a dog"}
    assert failure.index == 1 and failure.request.prompt == "forbidden"
    assert "400" in str(failure.error) and "forbidden word" in str(failure.error)


def test_what_goes_away_is_tried_again(name):
    standin, failed = STANDINS[name], []

    def answer(asked):
        if len(failed) < 2:
            failed.append(asked)
            return Answer(503, b"", {"retry-after": "0.01"})
        return standin.answer(asked, server)

    with Loopback(answer) as server:
        model = standin.open(name, server, max_retries=2)
        assert isinstance(model.generate("a cat"), Picture)
    first, second, third = server.asked[:3]
    assert first.content == second.content == third.content  # a form's boundary, a drawn seed: all the same
    keys = {asked.headers.get("idempotency-key") for asked in (first, second, third)}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html><body>hello</body></html>", {"content-type": "text/html"}),
        Answer(200, b"", {"content-type": "application/json"}),
        Answer(200, b"\xff\xfe\x00", {"content-type": "application/json"}),
        Answer(200, b"[" * 100_000, {"content-type": "application/json"}),
        Answer(200, {"error": [{"error": {"error": "x"}}]}),
        Answer(200, 7),
        Answer(200, {"data": 7, "images": 7, "output": 7, "predictions": 7, "candidates": 7, "status": 7}),
        Answer(302, b"", {"location": "http://127.0.0.1:9/elsewhere"}),
        Answer(200, b"x", {"content-length": "99999999999"}),
        Answer(200, b"x" * 100, {"content-encoding": "gzip"}),
        Answer(200, b"x" * 100, cut=True),
        Answer(418, b"\0" * 1000),
    ],
    ids=[
        "page",
        "empty",
        "no text",
        "deep",
        "odd",
        "number",
        "shapes",
        "sent on",
        "10 GB",
        "no gzip",
        "cut",
        "418",
    ],
)
def test_answers_of_any_kind_are_an_error(name, answer):
    with Loopback(lambda asked: answer) as server:
        model = STANDINS[name].open(name, server)
        with pytest.raises(ProviderError) as caught:
            model.generate("a cat")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800


def test_no_key_is_ever_shown(name, caplog, tmp_path):
    """A service echoes the key in every place it can; nothing that a user sees or keeps holds it."""
    standin = STANDINS[name]
    caplog.set_level(logging.DEBUG)
    with standin.serve() as server:
        model = standin.open(name, server)
        picture = model.generate("a cat")
        sent = str([dict(asked.headers) for asked in server.asked])
        assert SECRET in sent or name == "bedrock"  # who signs sends no key
        picture.save(tmp_path / "cat.png")
    seen = [repr(model), repr(model.provider), repr(picture), str(picture.request.to_dict()), caplog.text]
    seen.append((tmp_path / "cat.png").read_bytes().decode("latin-1"))
    for status in (200, 400, 401, 500):
        body = {"error": {"message": f"key {SECRET}"}, "detail": f"Bearer {SECRET}", "status": SECRET}
        with Loopback(lambda asked, body=body, status=status: Answer(status, body)) as server:
            with pytest.raises(ProviderError) as caught:
                standin.open(name, server).generate("a cat")
            chain = [caught.value, caught.value.__cause__, caught.value.__context__]
            seen += [str(error) + repr(error) for error in chain]
    assert not [text for text in seen if SECRET in text]


def test_no_place_on_this_machine_is_sent_in_place_of_a_picture(name, tmp_path):
    """A service that is sent no picture refuses a file; a mask alone is refused by those that take one."""
    path = tmp_path / "in.png"
    path.write_bytes(png())
    with STANDINS[name].serve() as server:
        model = STANDINS[name].open(name, server)
        for option in {"image", "mask"} - model.provider.options.keys():
            with pytest.raises(ParameterError, match=f"{option} is given, and .* is sent none"):
                model.generate("a cat", **{option: str(path)})
        if "mask" in model.provider.options:
            with pytest.raises(ParameterError, match="give image too"):
                model.generate("a cat", mask=str(path))
        assert not server.asked


def test_closing_the_stream_gives_up_what_is_under_way(name):
    import threading

    standin, held = STANDINS[name], threading.Event()

    def answer(asked):
        if b"slow" in asked.content:
            held.wait(5)
        return standin.answer(asked, server)

    with Loopback(answer) as server:
        model = standin.open(name, server, concurrency=2)
        events = model.stream(["a cat", "slow"])
        assert isinstance(next(event for event in events if not isinstance(event, Step)), Picture)
        events.close()
        assert list(events) == []
        held.set()


def test_what_it_cannot_use_is_said(name):
    with STANDINS[name].serve() as server:
        model = STANDINS[name].open(name, server)
        if "schedule" not in model.provider.parameters:
            with pytest.raises(ParameterError, match="cannot use schedule; it can use"):
                model.generate("a cat", schedule="karras")
        bad_settings = [
            {"timeout": -1}, {"timeout": (1, 2)}, {"max_retries": -1}, {"concurrency": 0}, {"rate": 0},
            {"base_url": "ftp://x"}, {"base_url": f"http://user:{SECRET}@x"}, {"api_key": "a\nb"},
            {"colour": 3},
        ]  # fmt: skip
        for bad in bad_settings:
            with pytest.raises(ParameterError) as caught:
                providers_open(name, server, bad)
            assert SECRET not in str(caught.value)
        assert not server.asked


def providers_open(name, server, bad):
    from pictura import TextToImage

    given = {"base_url": server.url, "api_key": STANDINS[name].key, **STANDINS[name].settings, **bad}
    return TextToImage.from_preset(f"{providers.scheme(name)}://{STANDINS[name].model}", **given)
