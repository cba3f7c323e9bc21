"""A real server used through our own provider for it: the same pictures as here, whatever happens between."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from pictura import Failure, Picture, Preview, ProviderError, Step, TextToImage
from pictura.errors import InputError

PROMPT = "a cat left of a pizza"


def opened(server, port=None, **settings):
    address = f"http://127.0.0.1:{port or server.port}#scenes"
    return TextToImage.from_preset(address, api="pictura", **{"timeout": (5, 60, 90), **settings})


def newest(server, **query):
    return server.get("/api/jobs", params=query).json()["items"]


class Relay:
    """Passes bytes on to a server. `asked` has the heads of requests; `cut(asked, size)` says after how many
    bytes of the answers to the latest one both lines are cut, or None."""

    def __init__(self, port, cut):
        self.asked, self._target, self._cut = [], port, cut
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listening.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                line = self._listening.accept()[0]
                threading.Thread(target=self._pass_on, args=(line,), daemon=True).start()

    def _pass_on(self, line):
        with line, socket.create_connection(("127.0.0.1", self._target)) as other:
            threading.Thread(target=self._answers, args=(other, line), daemon=True).start()
            with suppress(OSError):
                while content := line.recv(1 << 16):
                    self.asked.append(content.partition(b"\r\n\r\n")[0].decode("latin-1").lower())
                    other.sendall(content)

    def _answers(self, other, line):
        size = 0
        with suppress(OSError):
            while content := other.recv(1 << 16):
                limit = self._cut(self.asked)
                if limit is not None and size + len(content) > limit:
                    line.sendall(content[: max(0, limit - size)])
                    break
                line.sendall(content)
                size += len(content)
            for each in (line, other):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def relayed(server, cut):
    relay = Relay(server.port, cut)
    try:
        yield relay
    finally:
        relay.close()


def test_pictures_are_those_made_here(server, scenes):
    remote = opened(server)
    wanted = {
        "num_steps": 7, "guidance_scale": 3.5, "seed": 2**40, "sampler": "heun", "negative_prompts": "red"
    }  # fmt: skip
    here = scenes.generate(PROMPT, **wanted)
    there = remote.generate(PROMPT, **wanted)
    assert np.array_equal(there, here) and there.model_digest == here.model_digest
    assert there.request.amended(model=here.request.model) == here.request
    assert there.notes == here.notes
    # What is left open the server completes, and it comes back.
    bare = remote.generate("a purple flibbertigibbet", seed=3)
    expected = scenes.generate("a purple flibbertigibbet", seed=3)
    assert np.array_equal(bare, expected) and bare.notes == expected.notes != ()
    assert bare.request.amended(model=expected.request.model) == expected.request


def test_many_prompts_and_several_of_one(server, scenes):
    remote = opened(server)
    prompts = [f"{number} stars" for number in ("one", "two", "three")]
    there = remote.generate(prompts, seed=40, num_steps=3, num_images=2)
    here = scenes.generate(prompts, seed=40, num_steps=3, num_images=2)
    assert np.array_equal(there, here)
    assert [picture.request.seed for picture in there] == [40, 41, 42, 43, 44, 45]
    assert {job["total"] for job in newest(server, limit=3)} == {2}  # one job for what differs in seeds alone


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_steps_and_previews_come_before_the_picture(server, scenes, way):
    remote = opened(server)

    async def collected():
        return [event async for event in remote.astream(PROMPT, seed=5, num_steps=40, previews=True)]

    if way == "stream":
        told = list(remote.stream(PROMPT, seed=5, num_steps=40, previews=True))
    else:
        told = asyncio.run(collected())
    steps = [event for event in told if isinstance(event, Step)]
    previews = [event for event in told if isinstance(event, Preview)]
    assert steps and previews and isinstance(told[-1], Picture)
    assert [event.step for event in steps] == sorted({event.step for event in steps})
    assert {event.total for event in [*steps, *previews]} == {40} and previews[-1].image.size == (128, 128)
    assert np.array_equal(told[-1], scenes.generate(PROMPT, seed=5, num_steps=40))


def test_events_go_on_where_a_lost_connection_ended_them(server, scenes):
    def cut(asked):
        watched = sum("/events" in head for head in asked)
        return 700 if "/events" in asked[-1] and watched <= 2 else None

    with relayed(server, cut) as relay:
        remote = opened(server, relay.port)
        told = list(remote.stream(PROMPT, seed=8, num_steps=30, num_images=3))
    pictures = [event for event in told if isinstance(event, Picture)]
    assert sorted(picture.index for picture in pictures) == [0, 1, 2]
    for picture in pictures:
        assert np.array_equal(picture, scenes.generate(PROMPT, seed=8 + picture.index, num_steps=30))
    watched = [head for head in relay.asked if "/events" in head]
    assert len(watched) >= 3 and "last-event-id" not in watched[0] and "last-event-id: " in watched[2]
    assert sum(head.startswith("post /api/jobs ") for head in relay.asked) == 1


def test_a_job_is_accepted_once_though_its_answer_is_lost(server):
    before = {job["id"] for job in newest(server, limit=100)}
    lost = []

    def cut(asked):
        if asked[-1].startswith("post /api/jobs ") and not lost:
            lost.append(True)
            return 0
        return None

    with relayed(server, cut) as relay:
        picture = opened(server, relay.port).generate("a lighthouse", seed=1, num_steps=2)
    assert isinstance(picture, Picture)
    posts = [head for head in relay.asked if head.startswith("post /api/jobs ")]
    keys = {line for head in posts for line in head.splitlines() if line.startswith("idempotency-key")}
    assert lost and len(posts) == 2 and len(keys) == 1
    assert len({job["id"] for job in newest(server, limit=100)} - before) == 1


def test_a_server_that_dies_and_comes_back_finishes_the_job(own_server, scenes):
    server = own_server().start()
    remote = opened(server, max_retries=8)
    told = []
    drawing = threading.Thread(
        target=lambda: told.extend(remote.stream(PROMPT, seed=21, num_steps=60, num_images=2))
    )
    drawing.start()
    server.until(lambda: newest(server, status="running"))
    server.kill()
    server.start()
    drawing.join(60)
    pictures = {event.index: event for event in told if isinstance(event, Picture)}
    assert sorted(pictures) == [0, 1], told
    for index, picture in pictures.items():
        assert np.array_equal(picture, scenes.generate(PROMPT, seed=21 + index, num_steps=60))
    assert len(newest(server)) == 1


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_leaving_the_loop_cancels_the_job(server, way):
    remote = opened(server)

    async def left():
        stream = remote.astream("a slow owl", num_steps=1000, seed=1)
        async for event in stream:
            assert isinstance(event, Step)
            break
        await stream.aclose()

    if way == "stream":
        events = remote.stream("a slow owl", num_steps=1000, seed=1)
        assert isinstance(next(events), Step)
        events.close()
    else:
        asyncio.run(left())
    server.until(lambda: newest(server, limit=1)[0]["status"] == "cancelled", 10)


def test_failures_say_what_and_of_which_kind(server):
    remote = opened(server)
    prompts = [PROMPT, "two stars", "three stars"]
    told = []
    for prompt, options in zip(prompts, [{}, {"blur": 3}, {}], strict=True):
        told += [e for e in remote.stream(prompt, seed=1, num_steps=2, **options) if not isinstance(e, Step)]
    assert [type(event) for event in told] == [Picture, Failure, Picture]
    assert isinstance(told[1].error, InputError) and told[1].request.prompt == "two stars"
    assert "blur" in str(told[1].error) and "the server at http://127.0.0.1" in str(told[1].error)
    with pytest.raises(ProviderError, match="refused with 404: model 'nonesuch' is not offered here"):
        TextToImage.from_preset(f"{server.url}#nonesuch", api="pictura").generate("a cat")
    with pytest.raises(ProviderError, match="refused with 400: 8192x8192 pixels in 1000 steps"):
        remote.generate("a cat", size=(8192, 8192), num_steps=1000)


def test_pictures_in_options_are_sent_along(conditioned):
    server, model, wanted = conditioned
    source = str(wanted["image"])
    here = model.generate("a red cat", num_steps=4, **wanted)
    there = opened(server).generate("a red cat", num_steps=4, **wanted)
    assert np.array_equal(there, here) and there.image.size == (48, 32)
    assert there.request.options["image"]["path"] == source
    assert there.request.options["image"]["sha256"] == here.request.options["image"]["sha256"]
    # A name that a stranger writes is not opened on the server, whatever form it has.
    named = [{"image": source}, {"image": {"path": source}}, {"image": [{"path": source}]}]
    named += [{"control": [{"model": str(model.name), "image": "x"}]}, {"reference": {"model": "hf://a/b"}}]
    named += [{"lora": [source]}, {"embeddings": source}]
    for options in named:
        request = {"prompt": "a cat", "num_steps": 2, "options": options}
        answer = server.request("POST", "/api/jobs", json={"requests": [request]})
        if answer.status_code == 202:
            (failure,) = server.ended(answer.json()["id"])["failures"]
            assert "names a file, which is not possible here" in failure["error"], options
        else:
            assert answer.status_code == 400 and "name a path" in answer.json()["error"]["message"]


def test_a_key_is_needed_where_there_is_one(own_server):
    server = own_server(PICTURA_API_KEY="correct-horse-battery").start()
    with pytest.raises(ProviderError, match="refused with 401") as caught:
        opened(server, api_key="wrong-horse-battery", max_retries=0).generate("a cat")
    assert "wrong-horse" not in str(caught.value)
    assert isinstance(opened(server, api_key="correct-horse-battery").generate("a cat", num_steps=2), Picture)
