"""kill -9 of the API, the worker, and both, at every step of a job: nothing is lost, nothing made twice.

A client submits with an idempotency key and asks again until it is answered, as clients do; whoever looks
after the server starts it again when it is gone. What was acknowledged must be there in the end, once, and
with the pixels that the request stands for.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FAULTS = str(Path(__file__).parent / "faults")
COMMIT = "sqlalchemy.engine.default:DefaultDialect.do_commit"
WORKER = [
    ("pictura.server.benches:open_bench", "before", 1),
    ("pictura.history.claims:Claims.describe", "after", 1),
    ("pictura.history.claims:Claims.beat", "after", 1),
    ("pictura.history.claims:Claims.beat", "before", 2),
    ("pictura.history.claims:Claims.claim", "before", 1),
    ("pictura.history.claims:Claims.claim", "after", 1),
    ("pictura.history.claims:Claims.progress", "before", 1),
    ("pictura.history.claims:Claims.progress", "after", 1),
    ("pictura.history.claims:Claims.watched", "before", 1),
    ("pictura.server.benches:_Here.start", "before", 1),
    ("pictura.server.benches:_Here.start", "after", 2),
    ("pictura.server.benches:_Here.step", "after", 3),
    ("pictura.drawing:_image", "before", 1),
    ("pictura.history.claims:Claims.finish", "before", 1),
    ("pictura.history.claims:Claims.finish", "before", 2),
    ("pictura.history.claims:Claims.finish", "after", 1),
    ("pictura.history.claims:Claims.finish", "after", 3),
    ("pictura.history.blobs:Blobs.put", "before", 1),
    ("pictura.history.blobs:Blobs.put", "after", 1),
    ("pictura.history.blobs:sync", "before", 1),
    ("pictura.history.blobs:sync", "after", 2),
    ("os:fsync", "before", 1),
    ("os:fsync", "after", 2),
    ("pictura.history.claims:insert_picture", "before", 1),
    ("pictura.history.claims:insert_picture", "after", 2),
    ("pictura.history.claims:tell", "before", 2),
    ("pictura.history.claims:settle", "before", 3),
    ("pictura.history.claims:settle", "after", 3),
    *((COMMIT, when, nth) for when in ("before", "after") for nth in (2, 4, 6, 8)),
]
API = [
    ("pictura.history.jobs:Jobs.submit", "before", 1),
    ("pictura.history.jobs:Jobs.submit", "after", 1),
    ("pictura.history.jobs:insert_job", "before", 1),
    ("pictura.history.jobs:insert_job", "after", 1),
    ("pictura.history.jobs:tell", "after", 1),
    ("pictura.history.jobs:Jobs.get", "before", 1),
    ("pictura.history.jobs:Jobs.get", "after", 3),
    ("pictura.history.claims:Claims.wanted", "before", 2),
    ("pictura.server.processes:Processes.start", "before", 1),
    ("pictura.server.processes:Processes.start", "after", 1),
    *((COMMIT, when, nth) for when in ("before", "after") for nth in (1, 2)),
]
POINTS = [
    *(("worker", "kill", *point) for point in WORKER),
    *(("api", "kill", *point) for point in API),
    *(("worker", "kill both", *point) for point in WORKER[4::6]),
    *(("api", "kill both", *point) for point in API[1::4]),
]
QUICK = [POINTS[5], POINTS[13], POINTS[18], POINTS[len(WORKER) + 1], POINTS[-2]]
assert len(set(POINTS)) >= 40


@pytest.fixture(scope="module")
def expected(scenes):
    made = scenes.generate([one["prompt"] for one in REQUESTS], num_steps=3, seed=5)
    return [np.asarray(picture) for picture in made]


REQUESTS = [
    {"prompt": prompt, "seed": 5 + i, "num_steps": 3}
    for i, prompt in enumerate(["a cat", "two stars", "a rocket above a tree"])
]


def patiently(server, method, path, **more):
    """What a client does: ask again while nobody answers. The server is started again when it is gone."""

    def asked():
        if server.process.poll() is not None:
            server.start(ready=False)
        answer = server.request(method, path, **more)
        return answer if answer.status_code < 500 else None

    return server.until(asked, 90)


def check(server, job, expected):
    """Everything of this job is there once, in the database, on disk, in its events, and right."""
    assert job["status"] == "done" and job["failures"] == []
    assert [image["index"] for image in job["images"]] == list(range(len(expected)))
    for image, pixels in zip(job["images"], expected, strict=True):
        content = patiently(server, "GET", image["url"]).content
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    with sqlite3.connect(server.folder / "history.sqlite") as database:
        pictures = database.execute(
            "SELECT job_index, sha256, suffix FROM pictures WHERE job_id = ?", [job["id"]]
        ).fetchall()
        events = database.execute(
            "SELECT kind, data FROM events WHERE job_id = ? ORDER BY seq", [job["id"]]
        ).fetchall()
    assert sorted(index for index, _, _ in pictures) == list(range(len(expected)))
    for _, digest, suffix in pictures:
        content = (server.folder / "images" / digest[:2] / f"{digest}{suffix}").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest
    told = [json.loads(data)["index"] for kind, data in events if kind == "picture"]
    assert sorted(told) == list(range(len(expected)))
    states = [json.loads(data)["status"] for kind, data in events if kind == "status"]
    assert states[0] == "queued" and states[-1] == "done" and states.count("done") == 1


def survives(server, mark, expected):
    body = {"json": {"requests": REQUESTS}, "headers": {"idempotency-key": "one"}}
    job = patiently(server, "POST", "/api/jobs", **body).json()
    again = patiently(server, "POST", "/api/jobs", **body).json()
    assert again["id"] == job["id"]
    ended = server.until(
        lambda: (
            (now := patiently(server, "GET", f"/api/jobs/{job['id']}").json())["status"] == "done" and now
        ),
        90,
    )
    check(server, ended, expected)
    jobs = patiently(server, "GET", "/api/jobs").json()["items"]
    assert [one["id"] for one in jobs] == [job["id"]]
    assert mark.exists(), "the fault never happened: the point is not on a job's way any more"


def struck(own_server, tmp_path, point, expected):
    role, do, at, when, nth = point
    mark = tmp_path / "struck"
    fault = {"role": role, "do": do, "at": at, "when": when, "nth": nth, "mark": str(mark)}
    server = own_server(PICTURA_TEST_FAULT=json.dumps(fault), first=FAULTS)
    try:
        server.start(ready=False)
    except RuntimeError:  # it was to die before it could say where it is
        server.start(ready=False)
    survives(server, mark, expected)


@pytest.mark.parametrize("point", QUICK, ids=lambda point: "-".join(map(str, point)))
def test_killed_at_a_point(own_server, tmp_path, point, expected):
    struck(own_server, tmp_path, point, expected)


@pytest.mark.slow
@pytest.mark.parametrize("point", [p for p in POINTS if p not in QUICK], ids=lambda p: "-".join(map(str, p)))
def test_killed_at_any_point(own_server, tmp_path, point, expected):
    struck(own_server, tmp_path, point, expected)


def at_random(own_server, kills, seconds, expected):
    """Jobs all the time, and something killed every now and then."""
    server, rng, over = own_server().start(), random.Random(1), threading.Event()
    jobs: dict[str, str] = {}
    mended: list[BaseException] = []

    def clients():
        number = 0
        try:
            while not over.is_set():
                body = {"requests": REQUESTS}
                headers = {"idempotency-key": f"job {number}"}
                answer = server.until(
                    lambda body=body, headers=headers: (
                        (got := server.request("POST", "/api/jobs", json=body, headers=headers)).status_code
                        == 202 and got
                    ), 90,
                )  # fmt: skip
                jobs[headers["idempotency-key"]] = answer.json()["id"]
                number += 1
                time.sleep(0.3)
        except BaseException as error:
            mended.append(error)

    client = threading.Thread(target=clients)
    client.start()
    for _ in range(kills):
        time.sleep(rng.uniform(*seconds))
        workers = children(server.process.pid)
        victims = rng.choice(["worker", "api", "both"])
        if victims in ("api", "both"):
            server.kill()
        if victims in ("worker", "both"):
            for pid in workers:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
        if victims in ("api", "both"):
            server.start(ready=False)
    over.set()
    client.join()
    assert not mended and len(jobs) >= kills
    for id in jobs.values():
        check(server, server.ended(id, 120), expected)
    with sqlite3.connect(server.folder / "history.sqlite") as database:
        assert database.execute("SELECT count(*) FROM jobs").fetchone() == (len(jobs),)
        assert database.execute("SELECT count(*) FROM pictures").fetchone() == (3 * len(jobs),)


def children(pid):
    found = []
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(other))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_killed_at_random(own_server, expected):
    at_random(own_server, 3, (0.5, 4), expected)


@pytest.mark.slow
def test_killed_at_random_many_times(own_server, expected):
    at_random(own_server, 25, (0.2, 8), expected)


def test_what_a_dead_server_was_asked_is_made_by_the_next(own_server, expected, tmp_path):
    server = own_server().start()
    job = server.submit(*REQUESTS)
    server.kill()
    later = own_server(folder=tmp_path / "server").start()
    check(later, later.ended(job["id"]), expected)
