"""Full disks, databases that go away, memory that runs out, clocks that jump; and what is written when."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

FAULTS = str(Path(__file__).parent / "faults")
CAT = {"prompt": "a cat", "seed": 1, "num_steps": 2}


def test_what_is_written_is_on_the_disk_before_it_is_told(tmp_path):
    """The system calls of a worker: the file, its folder, then the row, each synced before the next."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    script = """
import sys
from PIL import Image
from pictura.history import History
from pictura.history.claims import Claims
from pictura.history.jobs import Jobs
from pictura.picture import Picture
from pictura.request import Request
with History(None, sys.argv[1]) as history:
    jobs, claims = Jobs(history), Claims(history)
    jobs.submit([Request(prompt="a", seed=1, model="toy")])
    (task,) = claims.claim("w", limit=1, lease=60)
    picture = Picture(image=Image.new("RGB", (8, 8)), request=task.request, model_digest="0" * 64)
    open("/dev/null").close()
    assert claims.finish(task, picture)
    open("/dev/zero").close()
"""
    trace = tmp_path / "trace"
    calls = "openat,fsync,fdatasync,rename,renameat,renameat2,pwrite64"
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", f"trace={calls}", sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*command, str(tmp_path / "home")], check=True, env=environment, timeout=120)
    lines = trace.read_text().splitlines()
    begin = max(i for i, line in enumerate(lines) if "/dev/null" in line)
    end = max(i for i, line in enumerate(lines) if "/dev/zero" in line)
    lines = lines[begin:end]

    def first(pattern, after=0):
        found = [i for i, line in enumerate(lines) if i >= after and re.search(pattern, line)]
        assert found, f"{pattern} is missing after {after} in\n" + "\n".join(lines)
        return found[0]

    made = first(r"openat\(.*\.part.*O_EXCL")
    synced = first(r"fsync\(\d+<[^>]*\.part>", made)
    renamed = first(r"rename.*\.part.*\.png", synced)
    folder = first(r"fsync\(\d+<[^>]*/images/[0-9a-f]{2}>", renamed)
    row = first(r"pwrite64\(\d+<[^>]*history\.sqlite-wal>", folder)
    first(r"(fsync|fdatasync)\(\d+<[^>]*history\.sqlite-wal>", row)
    early = [line for line in lines[:folder] if "history.sqlite-wal" in line and "pwrite" in line]
    assert not early, "the row was written before its file was safe"


def test_a_full_disk_fails_pictures_and_loses_none(own_server, tmp_path):
    """The folder of pictures is a file system of 300 kB: some fit, the others fail with words."""
    folder = tmp_path / "server"
    images = folder / "images"
    images.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(images)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        server = own_server(folder=folder).start()
        job = server.submit(*[{**CAT, "seed": seed} for seed in range(20)])
        done = server.ended(job["id"], 120)
        assert done["status"] == "done" and 1 <= len(done["images"]) < 20
        assert len(done["images"]) + len(done["failures"]) == 20
        assert {failure["kind"] for failure in done["failures"]} == {"FileError"}
        assert all("the disk is full" in failure["error"] for failure in done["failures"])
        for image in done["images"]:
            assert server.get(image["url"]).content.startswith(b"\x89PNG")
        assert not list(images.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=20m", str(images)], check=True)
        assert server.ended(server.submit(CAT)["id"])["status"] == "done"
        server.stop()
    finally:
        subprocess.run(["umount", "-l", str(images)], check=False)


def test_a_full_disk_under_the_database_is_told_and_passes(own_server, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        server = own_server(folder=folder).start()
        before = server.ended(server.submit(CAT)["id"])
        ballast = folder / "ballast"
        with pytest.raises(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        for _ in range(40):  # what the log still has room for may be accepted
            answer = server.request("POST", "/api/jobs", json={"requests": [CAT] * 20})
            if answer.status_code != 202:
                break
        assert answer.status_code == 503 and "database" in answer.json()["error"]["message"]
        assert server.job(before["id"]) == before
        ballast.unlink()
        again = server.until(
            lambda: (
                (a := server.request("POST", "/api/jobs", json={"requests": [CAT]})).status_code == 202 and a
            )
        )
        assert server.ended(again.json()["id"], 120)["status"] == "done"
        server.stop()
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_picture_without_memory_fails_alone(own_server, tmp_path):
    """What the worker cannot allocate within its limit is a Failure; its neighbours are drawn."""
    from pictura import TextToImage

    TextToImage.from_preset("toy", load_weights=False).save_to_preset(tmp_path / "toy")
    model = f"toy={tmp_path / 'toy'}"
    server = own_server("--model", model, first=FAULTS, PICTURA_TEST_MEMORY=str(16 << 30)).start()
    prompts = ["red", "hungry", "green", "blue hungry", "black"]
    done = server.ended(server.submit(*[{"prompt": prompt, "seed": 1} for prompt in prompts])["id"])
    assert [image["index"] for image in done["images"]] == [0, 2, 4]
    assert [(failure["index"], failure["kind"]) for failure in done["failures"]] == [
        (1, "OutOfMemory"), (3, "OutOfMemory"),
    ]  # fmt: skip
    again = server.ended(server.submit({"prompt": "white", "seed": 1})["id"])
    assert again["status"] == "done", "the same worker goes on"


def test_a_worker_that_dies_of_a_picture_is_not_given_it_for_ever(own_server, tmp_path):
    """A task that kills its worker three times is failed; those beside it are made."""
    from pictura import TextToImage

    TextToImage.from_preset("toy", load_weights=False).save_to_preset(tmp_path / "toy")
    server = own_server("--model", f"toy={tmp_path / 'toy'}", first=FAULTS, PICTURA_TEST_DEADLY="1").start()
    prompts = ["red", "deadly", "green", "blue"]
    done = server.ended(server.submit(*[{"prompt": prompt, "seed": 1} for prompt in prompts])["id"], 120)
    assert [image["index"] for image in done["images"]] == [0, 2, 3]
    (failure,) = done["failures"]
    assert failure["index"] == 1 and "died 3 times" in failure["error"]


def test_clocks_that_jump_disturb_nothing(own_server):
    """Leases are not measured on the wall clock: an hour to and fro, many times a second."""
    server = own_server(first=FAULTS, PICTURA_TEST_CLOCK="3600").start()
    jobs = [server.submit(*[{**CAT, "seed": 10 * k + i, "num_steps": 8} for i in range(6)]) for k in range(3)]
    for job in jobs:
        done = server.ended(job["id"], 120)
        assert done["status"] == "done" and len(done["images"]) == 6 and not done["failures"]
        told = [data["index"] for kind, data, _ in server.events(job["id"]) if kind == "picture"]
        assert sorted(told) == list(range(6)), "none was given to a second worker"


# PostgreSQL


def test_a_job_on_postgresql_whose_server_restarts(own_server, pg):
    postgres, name = pg
    server = own_server("--database", postgres.url(name)).start()
    job = server.submit(*[{**CAT, "seed": seed, "num_steps": 20} for seed in range(12)])
    server.until(lambda: server.job(job["id"])["images"])
    postgres.restart()
    done = server.until(
        lambda: (a := server.get(f"/api/jobs/{job['id']}")).status_code == 200
        and a.json()["status"] == "done" and a.json(), 120,
    )  # fmt: skip
    assert [image["index"] for image in done["images"]] == list(range(12)) and not done["failures"]
    assert postgres.count(name, "pictures") == 12


def test_connections_that_are_cut_again_and_again(own_server, pg):
    postgres, name = pg
    server = own_server("--database", postgres.url(name)).start()
    over = threading.Event()

    def cut():
        while not over.wait(0.4):
            postgres.cut(name)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        accepted = []
        for number in range(10):
            body = {"requests": [{**CAT, "seed": number}, {**CAT, "seed": 100 + number}]}
            head = {"idempotency-key": f"n{number}"}
            answer = server.until(
                lambda body=body, head=head: (
                    a := server.request("POST", "/api/jobs", json=body, headers=head)
                ).status_code == 202 and a, 60,
            )  # fmt: skip
            accepted.append(answer.json()["id"])
    finally:
        over.set()
        cutter.join()
    for id in accepted:
        done = server.until(lambda id=id: (j := server.job(id)).get("status") == "done" and j, 120)
        assert len(done["images"]) == 2
    assert postgres.count(name, "jobs") == 10 and postgres.count(name, "pictures") == 20
