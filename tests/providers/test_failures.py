"""What happens when services are slow, busy, broken or hostile: no lost picture, no leaked key, no crash."""

from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from email.utils import formatdate

import pytest
from standins import STANDINS

import pictura
from loopback import SECRET, Answer, Loopback, b64, png
from pictura import (
    Failure,
    ParameterError,
    Picture,
    PresetError,
    Preview,
    ProviderError,
    TextToImage,
    providers,
)
from pictura.limits import Circuit
from pictura.providers import Call, Reply, adrive, drive
from pictura.providers._addresses import is_private_name, is_public


def model(server, **settings):
    settings = {"api_key": SECRET, "timeout": (2, 5, 10), "max_retries": 0, **settings}
    return TextToImage.from_preset(f"openai+{server.url}/v1#m", **settings)


def good(*_):
    return {"data": [{"b64_json": b64()}]}


# Trying again


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529, None])
def test_what_may_go_away_is_tried_again(status):
    answers = [Answer(status or 200, b"x" * 50, cut=status is None), good()]
    with Loopback(lambda asked: answers[min(len(server.asked), 2) - 1]) as server:
        assert isinstance(model(server, max_retries=1).generate("a cat"), Picture)
    assert len(server.asked) == 2
    keys = [asked.headers["idempotency-key"] for asked in server.asked]
    assert keys[0] == keys[1]


def test_each_call_has_an_idempotency_key_of_its_own_also_after_a_fork():
    code = """
import os
from pictura.providers._sent import idempotency_key

def tell():
    print(*(idempotency_key()["idempotency-key"] for _ in range(3)), flush=True)

tell()
if os.fork() == 0:
    tell()
else:
    os.wait()
    tell()
"""
    command = [sys.executable, "-c", code]
    told = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert len(set(" ".join(told).split())) == 2 * 9


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422, 501])
def test_what_stays_is_not(status):
    with Loopback(lambda asked: Answer(status, {"error": "no"})) as server:
        with pytest.raises(ProviderError, match=f"{status}: no") as caught:
            model(server, max_retries=5).generate("a cat")
    assert len(server.asked) == 1 and caught.value.status == status


def test_pauses_are_random_and_double():
    pauses = []
    for _ in range(200):
        flow = providers.retried(Call("GET", "http://host/"), attempts=4, pause=1.0, longest=3.0)
        next(flow)
        pauses.append([flow.send(Reply(503)).seconds, (next(flow), flow.send(Reply(503)).seconds)[1]])
        flow.close()
    firsts, seconds = zip(*pauses, strict=True)
    assert 0 <= min(firsts) < 0.1 and 0.9 < max(firsts) <= 1.0
    assert min(seconds) < 0.2 and 1.8 < max(seconds) <= 2.0


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "0.3"}, 0.3, 1.5),
        ({"retry-after-ms": "300"}, 0.3, 1.5),
        ({"retry-after": formatdate(time.time() - 100, usegmt=True)}, 0.0, 1.5),
    ],
)
def test_retry_after_is_honoured(headers, low, high):
    answers = [Answer(429, b"", headers), good()]
    with Loopback(lambda asked: answers[min(len(server.asked), 2) - 1]) as server:
        started = time.monotonic()
        model(server, max_retries=1).generate("a cat")
    assert low <= time.monotonic() - started < high


def test_a_server_that_asks_for_an_hour_is_not_waited_for():
    with Loopback(lambda asked: Answer(429, {"error": "busy"}, {"retry-after": "3600"})) as server:
        with pytest.raises(ProviderError, match="429: busy; lower concurrency or rate"):
            model(server, max_retries=9).generate("a cat")
    assert len(server.asked) == 1


# Time and number


@pytest.mark.parametrize(("timeout", "words"), [((1, 9, 0.3), "in all"), ((1, 0.3, 9), "ReadTimeout")])
def test_no_answer_in_time(timeout, words):
    held = threading.Event()
    with Loopback(lambda asked: held.wait(5) and good()) as server:
        started = time.monotonic()
        with pytest.raises(ProviderError, match=words):
            model(server, timeout=timeout).generate("a cat")
        assert time.monotonic() - started < 2
        held.set()


def test_the_deadline_covers_waits_and_polls():
    def answer(asked):
        seed = {"id": "1", "polling_url": f"{server.url}/v1/get_result?id=1"}
        return seed if asked.method == "POST" else {"status": "Pending"}

    with Loopback(answer) as server:
        remote = TextToImage.from_preset(f"bfl+{server.url}#m", api_key=SECRET, timeout=(1, 1, 0.8))
        with pytest.raises(ProviderError, match="0.8 s in all"):
            remote.generate("a cat")


def test_no_more_at_once_than_said():
    """Also from several threads and event loops: the limit is the model's."""
    now, most, lock = 0, 0, threading.Lock()

    def answer(asked):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.05)
        with lock:
            now -= 1
        return good()

    with Loopback(answer) as server:
        remote = model(server, concurrency=3)
        works = [
            threading.Thread(target=remote.generate, args=(["a"] * 6,)),
            threading.Thread(target=lambda: asyncio.run(remote.agenerate(["b"] * 6))),
        ]
        for work in works:
            work.start()
        for work in works:
            work.join()
    assert len(server.asked) == 12 and most == 3


def test_no_faster_than_said():
    with Loopback(good) as server:
        started = time.monotonic()
        model(server, rate=20).generate(["a cat"] * 7)
    assert time.monotonic() - started >= 6 / 20


def test_one_busy_answer_makes_all_wait():
    times = []

    def answer(asked):
        times.append(time.monotonic())
        return Answer(429, b"", {"retry-after": "0.5"}) if len(times) == 1 else good()

    with Loopback(answer) as server:
        model(server, concurrency=1, max_retries=1).generate(["a", "b", "c"])
    assert times[1] - times[0] >= 0.5


def test_the_circuit_opens():
    with Loopback(lambda asked: Answer(500, {"error": "on fire"})) as server:
        told = list(model(server, concurrency=1).stream(["a cat"] * 30))
    assert len(server.asked) == 20
    assert [isinstance(event, Failure) for event in told] == [True] * 30
    assert "was not asked, since it did not answer many times" in str(told[-1].error)


def test_the_circuit_closes_again(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pictura.limits.monotonic", lambda: now[0])
    circuit = Circuit(most=2, seconds=30)
    circuit.told(False)
    circuit.told(False)
    assert circuit.left() == 30
    now[0] = 31.0
    assert circuit.left() == 0  # this one tries
    assert circuit.left() > 0  # the others wait
    circuit.told(True)
    assert circuit.left() == 0


def test_a_refusal_is_no_sign_of_a_dead_service():
    with Loopback(lambda asked: Answer(400, {"error": "no"})) as server:
        list(model(server, concurrency=1).stream(["a cat"] * 25))
    assert len(server.asked) == 25


# Nothing paid for is lost


def test_three_pictures_of_four():
    with Loopback(lambda asked: {"data": [{"b64_json": b64()}] * 3}) as server:
        told = list(model(server).stream("a cat", num_images=4))
    assert [type(event) for event in told] == [Picture] * 3 + [Failure]
    assert [event.index for event in told] == [0, 1, 2, 3]
    assert "3 pictures of 4" in str(told[-1].error)


@pytest.mark.parametrize("refusing", [True, False], ids=["refuses several", "makes one"])
def test_a_service_of_one_picture_a_request_is_asked_for_each(refusing):
    def answer(asked):
        several = asked.json.get("n", 1) > 1
        if several and refusing or "bad" in asked.json["prompt"]:
            return Answer(400, {"error": {"message": "You must provide n=1 for this model."}})
        return {"data": [{"b64_json": b64()}]}

    with Loopback(answer) as server:
        remote = model(server, concurrency=1)
        assert len(remote.generate("a cat", num_images=3)) == 3
        assert len(server.asked) == (4 if refusing else 3)
        server.asked.clear()
        assert len(remote.generate("a star", num_images=2)) == 2
        assert len(server.asked) == 2  # that much is known now
        told = list(model(server).stream("a bad cat", num_images=3))
    assert [type(event) for event in told] == [Failure] * 3 and len(server.asked) == 4


def test_pictures_beyond_those_asked_for_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path))
    colours = [(1, 1, 1), (2, 2, 2), (3, 3, 3)]
    with Loopback(lambda asked: {"data": [{"b64_json": b64(colour)} for colour in colours]}) as server:
        told = list(model(server).stream("a cat"))
        again = model(server).generate("a cat")
    assert [type(event) for event in told] == [Picture] and told[0].image.getpixel((0, 0)) == (1, 1, 1)
    kept = sorted((tmp_path / "surplus").iterdir())
    assert len(kept) == 2 and all(str(path) in told[0].notes[-1] for path in kept)
    assert "2 more than it was asked for" in told[0].notes[-1] and again.notes == told[0].notes
    found = {Picture.open(path).image.getpixel((0, 0)) for path in kept}
    assert found == set(colours[1:]) and Picture.open(kept[0]).request.prompt == "a cat"


def test_pictures_beyond_those_asked_for_are_fetched_last(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path))
    urls = [{"url": "/0.png"}, {"url": "/1.png"}, {"url": "/gone.png"}]

    def answer(asked):
        if asked.method == "POST":
            return {"data": urls}
        return Answer(404) if "gone" in asked.path else png((int(asked.path[1]), 0, 0))

    with Loopback(answer) as server:
        picture = model(server).generate("a cat")
    assert picture.image.getpixel((0, 0)) == (0, 0, 0) and not picture.notes  # it was handed over before
    (kept,) = (tmp_path / "surplus").iterdir()
    assert Picture.open(kept).image.getpixel((0, 0)) == (1, 0, 0) and str(kept) in caplog.text


def test_what_cannot_be_kept_is_said(monkeypatch, tmp_path):
    (tmp_path / "surplus").write_text("in the way")
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path))
    with Loopback(lambda asked: {"data": [{"b64_json": b64()}] * 2}) as server:
        picture = model(server).generate("a cat")
    assert "could not be written" in picture.notes[-1]


def test_a_picture_is_told_before_the_next_is_fetched():
    """Of two pictures the second never arrives: the first is in the caller's hands long before."""
    held = threading.Event()

    def answer(asked):
        if asked.method == "POST":
            return {"data": [{"url": "/slow.png"}, {"b64_json": b64((7, 7, 7))}, {"url": "/gone.png"}]}
        if asked.path == "/slow.png":
            held.wait(5)
            return png((8, 8, 8))
        return Answer(404)

    with Loopback(answer) as server:
        events = model(server).stream("a cat", num_images=3)
        first = next(events)
        assert isinstance(first, Picture) and first.index == 1 and not held.is_set()
        held.set()
        rest = {event.index: event for event in events}
    assert isinstance(rest[0], Picture) and isinstance(rest[2], Failure)
    assert "cannot be fetched (404)" in str(rest[2].error)


@pytest.mark.parametrize("how", ["close", "task"])
def test_giving_up_ends_the_calls(how):
    """The server sees the connection end, and a job is cancelled where the service can do that."""
    started, cancelled = threading.Event(), threading.Event()

    def answer(asked):
        if asked.path.endswith("/cancel"):
            cancelled.set()
            return {}
        where = f"{server.url}/predictions/1"
        if asked.method == "POST" and asked.json["input"]["prompt"] == "quick":
            return {"status": "succeeded", "output": f"data:image/png;base64,{b64()}"}
        if asked.method == "GET":
            started.set()
        return {"status": "processing", "urls": {"get": where, "cancel": f"{where}/cancel"}}

    async def task(remote):
        work = asyncio.create_task(remote.agenerate("a cat"))
        await asyncio.to_thread(started.wait, 5)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    with Loopback(answer) as server:
        remote = TextToImage.from_preset(f"replicate+{server.url}#o/n", api_key=SECRET)
        if how == "task":
            asyncio.run(task(remote))
        else:
            events = remote.stream(["quick", "slow"])
            assert isinstance(next(events), Picture)
            assert started.wait(5)
            events.close()
        assert cancelled.wait(5)
        posts = len(server.asked)
        time.sleep(0.3)
        assert len(server.asked) == posts  # nobody asks any more


# Hostile answers


def endless(piece):
    while True:
        yield piece


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize("driver", ["sync", "async"])
def test_memory_stays_flat_whatever_is_sent(coding, driver):
    """An endless body, and 200 MiB that were packed into 200 KiB, are stopped at the limit."""
    bomb = gzip.compress(bytes(200 << 20), 9) if coding == "gzip" else None

    def answer(asked):
        if bomb is None:
            return Answer(body=endless(bytes(1 << 16)))
        return Answer(body=bomb, headers={"content-encoding": "gzip"})

    def flow(url):
        reply = yield Call("GET", url, limit=1 << 20)
        return reply

    with Loopback(answer) as server:
        tracemalloc.start()
        with pytest.raises(ProviderError, match="more than 1 MiB"):
            drive(flow(server.url)) if driver == "sync" else asyncio.run(adrive(flow(server.url)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 40 << 20


def huge_png():
    huge = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x00\x00\x00\x01\x00\x00\x08\x02\x00\x00\x00"
    return huge + zlib.crc32(huge[12:]).to_bytes(4, "big") + b"\x00\x00\x00\x09IDAT" + bytes(13)


def huge_bmp():
    head = struct.pack("<IiiHHIIiiII", 40, 1 << 16, 1 << 16, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head


@pytest.mark.parametrize(
    ("huge", "words"), [(huge_png(), "65536x65536 pixels"), (huge_bmp(), "far more pixels")]
)
def test_pictures_that_are_too_large_are_refused(huge, words):
    with Loopback(lambda asked: {"data": [{"b64_json": base64.b64encode(huge).decode()}]}) as server:
        tracemalloc.start()
        with pytest.raises(ProviderError, match=words):
            model(server).generate("a cat")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 40 << 20


def test_the_key_never_goes_to_another_host():
    with Loopback(lambda asked: good()) as other:
        where = other.url.replace("127.0.0.1", "localhost")
        for status in (301, 302, 303, 307, 308):
            answer = Answer(status, b"", {"location": f"{where}/v1/images/generations"})
            with Loopback(lambda asked, answer=answer: answer) as server:
                with pytest.raises(ProviderError, match="sends its callers on to localhost"):
                    model(server).generate("a cat")
        assert other.asked == []


def test_the_service_may_send_on_within_itself():
    def answer(asked):
        moved = asked.path != "/v2/images"
        return Answer(308, b"", {"location": "/v2/images"}) if moved else good()

    with Loopback(answer) as server:
        model(server).generate("a cat")
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Bearer {SECRET}"] * 2
    assert server.asked[0].content == server.asked[1].content


def test_pictures_elsewhere_are_fetched_without_the_key():
    with Loopback(lambda asked: png()) as files:
        where = files.url.replace("127.0.0.1", "localhost")

        def answer(asked):
            if asked.method == "POST":
                return {"data": [{"url": f"{server.url}/moved.png"}]}
            return Answer(302, b"", {"location": f"{where}/picture.png?signature=abc"})

        with Loopback(answer) as server:
            model(server).generate("a cat")
        assert server.asked[1].headers["authorization"] == f"Bearer {SECRET}"  # its own origin
        (asked,) = files.asked
    assert asked.path == "/picture.png?signature=abc" and "authorization" not in asked.headers


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_a_public_service_cannot_reach_this_network(driver):
    """What a service on the internet names is fetched from the internet only, without its key."""
    provider = providers.load("openai")("m", api_key=SECRET)

    def run(flow):
        return drive(flow) if driver == "sync" else asyncio.run(adrive(flow))

    with Loopback(lambda asked: png()) as server:
        for url in ("http://127.0.0.1/x.png", "http://169.254.169.254/latest/meta-data"):
            with pytest.raises(ProviderError, match="not encrypted"):
                run(provider.fetch(url))
        port = server.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "2130706433"):
            with pytest.raises(ProviderError, match="private network|no answer"):
                run(provider.fetch(f"https://{host}:{port}/x.png"))
        call = next(provider.fetch("https://files.example.com/x.png"))
        assert call.public and "authorization" not in call.headers
        call = next(provider.fetch("/x.png"))
        assert not call.public and SECRET in call.headers["authorization"]
        assert server.asked == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("0.0.0.0", False),
        ("100.64.0.1", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False),
        ("fd00::1", False), ("::ffff:10.0.0.1", False), ("::ffff:8.8.8.8", True),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


def test_a_key_is_not_sent_unencrypted_over_the_internet():
    with pytest.raises(ParameterError, match="unencrypted"):
        TextToImage.from_preset("http://api.example.com/v1", api="openai", api_key=SECRET)
    TextToImage.from_preset("http://gpu-box:8000/v1", api="openai", api_key=SECRET)
    assert is_private_name("gpu-box") and is_private_name("192.168.0.7") and not is_private_name("8.8.8.8")


# The connection itself


class Raw:
    """A server that answers every connection's requests with bytes as they are."""

    def __init__(self, *answers, hang_up=True):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.answers, self.hang_up, self.connections = list(answers), hang_up, 0
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        try:
            while True:
                connection, _ = self.socket.accept()
                self.connections += 1
                with connection:
                    while (data := connection.recv(65536)) and self.answers:
                        assert data.startswith((b"GET ", b"POST "))
                        connection.sendall(self.answers.pop(0))
                        if self.hang_up:
                            break
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def fetched(url, driver, **more):
    def flow():
        reply = yield Call("GET", url, timeout=2.0, **more)
        return reply

    return drive(flow()) if driver == "sync" else asyncio.run(adrive(flow()))


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("driver", ["sync", "async"])
@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\n\r\nhello",
        OK + b"transfer-encoding: Chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: 1\r\n\r\n",
        OK + b"\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 5\r\n\r\nhello",
        OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello", mtime=0),
    ],
)
def test_every_form_of_body(driver, answer):
    with Raw(answer) as server:
        assert fetched(server.url, driver).content == b"hello"


@pytest.mark.parametrize("driver", ["sync", "async"])
@pytest.mark.parametrize(
    "answer",
    [
        b"", b"SSH-2.0-OpenSSH_9\r\n\r\n", OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: 50\r\n\r\nhello", OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
        OK + b"x" * 200_000, b"HTTP/1.1 2OO OK\r\n\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
    ],
)  # fmt: skip
def test_what_is_no_http(driver, answer):
    with Raw(answer) as server, pytest.raises(ProviderError, match="no answer from GET"):
        fetched(server.url, driver)


def test_connections_are_used_again_and_replaced():
    body = b'{"data": [{"b64_json": "%s"}]}' % b64().encode()
    answer = OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with Raw(*[answer] * 3, hang_up=False) as server:
        remote = model(server, concurrency=1)
        remote.generate(["a", "b"])
        remote.generate("c")
        assert server.connections == 1
    with Raw(*[answer] * 3) as server:  # ends each connection without having said so
        remote = model(server, concurrency=1)
        for prompt in "abc":
            remote.generate(prompt)
            time.sleep(0.05)
        assert server.connections == 3


def test_a_notebook_has_a_loop_running():
    async def cell():
        with Loopback(good) as server:
            return model(server).generate("a cat")  # blocks, as notebooks do

    assert isinstance(asyncio.run(cell()), Picture)


def test_lazy_inputs_are_read_as_they_are_needed():
    read = []

    def prompts():
        for index in range(1000):
            read.append(index)
            yield f"cat {index}"

    with Loopback(good) as server:
        events = model(server, concurrency=2).stream(prompts())
        next(events)
        assert len(read) <= 6
        events.close()

        async def main():
            read.clear()
            stream = model(server, concurrency=2).astream(prompts())
            async for _ in stream:
                break
            await stream.aclose()
            assert len(read) <= 6

        asyncio.run(main())


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_all_places_are_taken_before_the_first_answer(way):
    together = threading.Barrier(60)

    def answer(asked):
        together.wait(20)
        return good()

    async def streamed(remote):
        return [event async for event in remote.astream(f"cat {index}" for index in range(60))]

    with Loopback(answer) as server:
        remote = model(server, concurrency=60, timeout=(2, 25, 30))
        prompts = (f"cat {index}" for index in range(60))  # of which none is read before it is wanted
        told = list(remote.stream(prompts)) if way == "stream" else asyncio.run(streamed(remote))
    assert [type(event) for event in told] == [Picture] * 60


def test_previews_and_steps_of_our_own_server():
    with STANDINS["pictura"].serve() as server:
        remote = STANDINS["pictura"].open("pictura", server)
        told = list(remote.stream("a cat", seed=1, previews=True))
    assert [type(event).__name__ for event in told] == ["Step", "Preview", "Picture"]
    assert isinstance(told[1], Preview) and told[1].total == 2
    # As the server completed it.
    assert told[2].request.num_steps == 12 and told[2].request.sampler == "euler"


def test_progress_is_asked_for_while_a_picture_is_waited_for(monkeypatch):
    monkeypatch.setattr("pictura.providers.automatic1111._EVERY", 0.02)
    standin, looked = STANDINS["automatic1111"], threading.Semaphore(0)
    says = [
        Answer(500, {"error": "no"}), Answer(200, b"<html>"), Answer(200, {"state": {"job_no": "x"}}),
        {"state": {"job_no": 0, "sampling_step": 0, "sampling_steps": 9}, "current_image": None},
        {"state": {"job_no": 0, "sampling_step": 3, "sampling_steps": 9}, "current_image": "no base64 %"},
        {"state": {"job_no": 0, "sampling_step": 4, "sampling_steps": 9}, "current_image": b64()},
        {"state": {"job_no": 0, "sampling_step": 4, "sampling_steps": 9}, "current_image": b64()},
        {"state": {"job_no": 7, "sampling_step": 5, "sampling_steps": 9}, "current_image": b64()},
    ]  # fmt: skip

    def answer(asked):
        if "/progress" in asked.path:
            assert asked.path.endswith("skip_current_image=false")
            looked.release()
            return says[min(len(server.asked) - 2, len(says) - 1)]
        for _ in range(len(says) + 1):
            assert looked.acquire(timeout=10)
        return standin.answer(asked, server)

    with Loopback(answer) as server:
        remote = standin.open("automatic1111", server, timeout=(5, 20, 30))
        told = list(remote.stream("a cat", seed=1, previews=True))
        many = standin.open("automatic1111", server, concurrency=2)
        looked.release(100)
        assert isinstance(many.generate("a cat", seed=1), Picture)
    shown = [(type(event).__name__, event.index, getattr(event, "step", None)) for event in told]
    assert shown == [("Step", 0, 3), ("Step", 0, 4), ("Preview", 0, 4), ("Picture", 0, None)]
    assert "/progress" not in server.asked[-1].path  # whose progress would it be?


@pytest.mark.parametrize("body", [
    {"error": "HTTPException", "detail": "Sampler not found", "body": "", "errors": ""},
    {"error": "OutOfMemoryError", "detail": "", "body": "", "errors": "Sampler not found"},
    {"detail": [{"loc": ["body", "steps"], "msg": "Sampler not found"}]},
])  # fmt: skip
def test_the_words_of_automatic1111_rather_than_its_class_of_error(body):
    with Loopback(lambda asked: Answer(422, body)) as server:
        with pytest.raises(ProviderError, match="Sampler not found"):
            STANDINS["automatic1111"].open("automatic1111", server).generate("a cat")


def test_a_proxy_of_the_environment_is_used(monkeypatch, caplog):
    from pictura.providers._general import proxies

    def echo(asked):
        return Answer(body=good(), headers={"x-echo": asked.headers["authorization"]})

    caplog.set_level(logging.DEBUG)
    with Loopback(echo) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        proxies.cache_clear()
        try:
            remote = TextToImage.from_preset("openai+http://gpu-box:8000/v1#m", api_key=SECRET)
            assert isinstance(remote.generate("a cat"), Picture)
            assert isinstance(asyncio.run(remote.agenerate("a cat")), Picture)
            with Loopback(good) as here:
                assert isinstance(model(here).generate("a cat"), Picture)
                assert len(here.asked) == 1
        finally:
            proxies.cache_clear()
    assert [asked.path for asked in proxy.asked] == ["http://gpu-box:8000/v1/images/generations"] * 2
    assert "httpcore2" in caplog.text and SECRET not in caplog.text


def test_names_of_ones_own_for_remote_models():
    with Loopback(good) as server:
        pictura.presets.register("my-remote", f"openai+{server.url}/v1#m")
        picture = TextToImage.from_preset("my-remote").generate("a cat")
    assert picture.request.model == f"openai+{server.url}/v1#m"  # so that anyone can replay it
    with pytest.raises(PresetError, match="is remote"):
        TextToImage.of("scenes").from_preset("my-remote")
    with pytest.raises(ParameterError, match="the model is remote"):
        TextToImage.from_preset("my-remote", dtype="float16")
    for what in ("fit", "save_to_preset"):
        with pytest.raises(PresetError, match="is a remote model"):
            getattr(TextToImage.from_preset("my-remote"), what)("x")


def test_how_many_pictures_is_said_in_one_way():
    with Loopback(good) as server, pytest.raises(ParameterError, match="give num_images"):
        model(server).generate("a cat", n=3)
