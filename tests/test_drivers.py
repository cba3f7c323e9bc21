"""Both HTTP drivers run the same provider, against a real server on loopback."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from loopback import Server
from pictura.errors import Cancelled, ProviderError
from pictura.providers import Call, Reply, Wait, adrive, drive, retried, retry_after

SECRET = "sk-never-print-this"


class Handler(BaseHTTPRequestHandler):
    """Draws a plain picture; the prompt says how to misbehave."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["prompt"]
        self.server.seen[prompt] += 1
        first = self.server.seen[prompt] == 1
        if self.headers["authorization"] != f"Bearer {SECRET}":
            return self.answer(401, {"error": {"message": "no key"}})
        if prompt == "busy" and first:
            return self.answer(429, {}, {"Retry-After": "0.05"})
        if prompt == "down":
            return self.answer(503, {}, {"Retry-After": "0"})
        if prompt == "hopeless":
            return self.answer(500, {}, {"X-Should-Retry": "false"})
        if prompt == "page":
            return self.answer(200, None)
        if prompt == "cut" and first:
            self.connection.close()
            return None
        if prompt == "slow":
            time.sleep(0.6)
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), (len(prompt), 100, 200)).save(picture, "PNG")
        return self.answer(200, {"data": [{"b64_json": base64.b64encode(picture.getvalue()).decode()}]})

    def answer(self, status, body, headers=()):
        content = b"<html>" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.seen = Counter()
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def url(server):
    return f"http://127.0.0.1:{server.server_port}/v1/images/generations"


def draw(address, prompt, closed=None, timeout=5.0, key=SECRET):
    """A provider in the few lines that the package promises."""
    call = Call("POST", address, {"Authorization": f"Bearer {key}"}, json={"prompt": prompt}, timeout=timeout)
    try:
        reply = yield from retried(call, attempts=3, pause=0.01)
        if not reply.ok:
            raise ProviderError(f"the server refused with {reply.status}")
        return [
            np.asarray(Image.open(io.BytesIO(base64.b64decode(item["b64_json"]))))
            for item in reply.json()["data"]
        ]
    finally:
        if closed is not None:
            closed.append(prompt)


def run_async(flow):
    return asyncio.run(adrive(flow))


@pytest.fixture(params=[drive, run_async], ids=["sync", "async"])
def driver(request):
    return request.param


def test_a_picture_comes_back(server, driver):
    (picture,) = driver(draw(url(server), "cat"))
    assert picture.shape == (8, 8, 3) and picture[0, 0].tolist() == [3, 100, 200]


@pytest.mark.parametrize(("prompt", "tries"), [("busy", 2), ("cut", 2)])
def test_what_goes_away_is_tried_again(server, driver, prompt, tries):
    assert len(driver(draw(url(server), prompt))) == 1
    assert server.seen[prompt] == tries


@pytest.mark.parametrize(("prompt", "tries", "words"), [("down", 3, "503"), ("hopeless", 1, "500")])
def test_what_stays_is_an_error(server, driver, prompt, tries, words):
    closed = []
    with pytest.raises(ProviderError, match=words):
        driver(draw(url(server), prompt, closed))
    assert server.seen[prompt] == tries and closed == [prompt]


def test_a_refused_key_is_not_tried_again(server, driver):
    with pytest.raises(ProviderError, match="401"):
        driver(draw(url(server), "cat", key="wrong"))
    assert server.seen["cat"] == 1


def test_a_web_page_in_place_of_json(server, driver):
    with pytest.raises(ProviderError, match="not JSON"):
        driver(draw(url(server), "page"))


def test_no_server_and_no_time(server, driver):
    with pytest.raises(ProviderError, match="no answer from POST http://127.0.0.1:9/") as caught:
        driver(draw("http://127.0.0.1:9/v1?key=" + SECRET, "cat"))
    assert SECRET not in str(caught.value)
    with pytest.raises(ProviderError, match="Timeout"):
        driver(draw(url(server), "slow", timeout=0.1))
    with pytest.raises(ProviderError, match="no answer"):
        driver(draw("not an address", "cat"))


def test_secrets_are_in_no_repr():
    call = Call("POST", "http://host/v1", {"Authorization": SECRET}, json={"key": SECRET}, content=b"x")
    reply = Reply(200, {"set-cookie": SECRET}, SECRET.encode())
    assert SECRET not in repr(call) + repr(reply)


def test_anything_else_yielded_is_thrown_back(driver):
    def confused():
        yield "http://host/"

    with pytest.raises(ProviderError, match="yielded str"):
        driver(confused())


def test_stop_from_another_thread_ends_a_wait():
    closed = []

    def waiting():
        try:
            yield Wait(60)
        finally:
            closed.append(True)

    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    timer.start()
    with pytest.raises(Cancelled):
        drive(waiting(), stop=stop)
    timer.join()
    assert closed == [True]


def test_cancelling_the_task_closes_the_flow(server):
    closed = []

    async def main():
        task = asyncio.create_task(adrive(draw(url(server), "slow", closed)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert closed == ["slow"]


def test_one_failure_leaves_its_neighbours(server):
    async def main():
        async with httpx.AsyncClient() as client:
            flows = [draw(url(server), prompt) for prompt in ("cat", "down", "dog", "busy")]
            return await asyncio.gather(*(adrive(flow, client) for flow in flows), return_exceptions=True)

    cat, down, dog, busy = asyncio.run(main())
    assert isinstance(down, ProviderError)
    assert len(cat) == len(dog) == len(busy) == 1


def test_a_given_client_stays_open(server):
    with httpx.Client() as client:
        for prompt in ("cat", "dog"):
            drive(draw(url(server), prompt), client)
        assert not client.is_closed


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("", None), ("soon", None), (formatdate(1020, usegmt=True), 20.0)],
)
def test_retry_after(value, seconds):
    assert retry_after(Reply(429, {"retry-after": value}), now=1000.0) == seconds


def test_a_server_that_asks_for_too_long_is_not_waited_for():
    flow = retried(Call("GET", "http://host/"), patience=10)
    assert isinstance(next(flow), Call)
    with pytest.raises(StopIteration) as done:
        flow.send(Reply(429, {"retry-after": "3600"}))
    assert done.value.value.status == 429
