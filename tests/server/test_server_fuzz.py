"""Thousands of hostile requests on every route of a real server: it answers, stays as it is, and draws on."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fuzzing import asks
from PIL import Image

LIMITS = ["body=3000000", "slow=2", "head=2", "wait=20", "queue=60", "images=4", "work=3000000"]


def resident(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def children(pid):
    found = Path(f"/proc/{pid}/task").glob("*/children")  # each under the thread that has started it
    return sorted(int(one) for file in found for one in file.read_text().split())


def answered(server, ask):
    """(status, body) of an answer, (0, b"") for none."""
    found = b""
    place = ("127.0.0.1", server.port)
    with contextlib.suppress(ConnectionError), socket.create_connection(place, 60) as line:
        with contextlib.suppress(ConnectionError):  # it may answer before it has read all
            line.sendall(ask.sent)
        while len(found) < 1 << 22 and (part := line.recv(65536)):
            found += part
    found = re.sub(rb"^HTTP/1.1 100 Continue\r\n\r\n", b"", found)
    head, _, body = found.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1.1 (\d\d\d) ", head)
    assert match or not found, found[:200]
    said = head.lower()
    if b"content-type: application/json" in said and b"transfer-encoding" not in said:
        if not ask.sent.startswith(b"HEAD"):
            json.loads(body)
    return (int(match[1]), body) if match else (0, b"")


def fuzzed(server, scenes, count, seed):
    """Send them all, eight at a time; what was wrong with any."""
    job = server.submit({"prompt": "a cat", "seed": 5, "num_steps": 2, "num_images": 2})
    ids = [job["id"], *[one["id"] for one in server.ended(job["id"])["images"]]]
    document = server.get("/openapi.json").json()
    wrong, statuses = [], []

    def one(ask):
        status, body = answered(server, ask)
        statuses.append(status)
        bad = status >= 500 and status != 503 or b"Traceback" in body or (ask.whole and status == 0)
        if bad:
            wrong.append((status, ask.sent[:600], body[:300]))

    def send(requests):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, requests))

    send(asks(document, ids, max(200, count // 5), seed))  # caches fill, threads and pools come to be
    server.until(lambda: not busy(server))
    (worker,) = children(server.process.pid)
    before = resident(server.process.pid), resident(worker)
    send(asks(document, ids, count, seed + 1))
    server.until(lambda: not busy(server))
    after = resident(server.process.pid), resident(worker)
    assert not wrong, wrong[:5]
    assert children(server.process.pid) == [worker]  # nothing that was drawn has ended it
    gained = [(now - then) >> 20 for then, now in zip(before, after, strict=True)]
    assert gained[0] < 100 and gained[1] < 100, gained  # MB; it is 10 after the first few thousand
    log = "\n".join(server.log)
    assert "Traceback" not in log and '"level": "error"' not in log
    assert statuses.count(400) > count / 10 and statuses.count(200) > count / 20 and 202 in statuses
    done = server.ended(server.submit({"prompt": "a cat left of a pizza", "seed": 7})["id"])
    made = Image.open(io.BytesIO(server.get(done["images"][0]["url"]).content))
    assert np.array_equal(made, scenes.generate("a cat left of a pizza", seed=7))


def busy(server):
    items = server.get("/api/jobs?limit=100").json()["items"]
    return [one for one in items if one["status"] in ("queued", "running")]


@pytest.fixture
def fuzzable(own_server):
    limits = [argument for limit in LIMITS for argument in ("--limit", limit)]
    return own_server("--log", "json", *limits).start()


def test_hostile_requests(fuzzable, scenes):
    fuzzed(fuzzable, scenes, 1500, seed=1)


@pytest.mark.slow
def test_ten_thousand_hostile_requests(fuzzable, scenes):
    fuzzed(fuzzable, scenes, 10_000, seed=2)
