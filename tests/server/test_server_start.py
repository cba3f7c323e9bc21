"""What `pictura serve` says when it cannot start, and that it then leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def refused(*arguments, **environment):
    """Exit status and the only line that it says."""
    command = [sys.executable, "-m", "pictura", "serve", "--port", "0", *map(str, arguments)]
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | path | environment
    )
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    return done.returncode, line


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--host", "0.0.0.0"), "PICTURA_API_KEY"),
        (("--model", "nosuch"), "'nosuch' is unknown"),
        (("--model", "cat=/nonexistent/cat"), "'/nonexistent/cat' is no folder"),
        (("--folder", "/dev/null/x"), "'/dev/null/x'"),
        (("--database", "mysql://x/y"), "postgresql://"),
        (("--database", "postgresql://me:secret@127.0.0.1:1/x"), "the database is not to be reached"),
        (("--database", "sqlite:////nonexistent/x.db"), "unable to open database file"),
        (("--loras", "/nonexistent"), "no folder"),
        (("--adapters", "/nonexistent"), "no folder"),
        (("--grace", "1e999"), "--grace"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line(tmp_path, arguments, word):
    status, line = refused("--folder", tmp_path, *arguments)
    assert status in (1, 2) and word in line and "secret" not in line


def test_a_port_that_is_taken(server, tmp_path):
    status, line = refused("--folder", tmp_path / "new", "--port", server.port)
    assert status == 2 and f"port {server.port}" in line and "--port" in line
    assert not (tmp_path / "new").exists(), "nothing was begun"


def test_two_servers_of_one_history(server, own_server):
    """Both supervise, neither does the other's work again, and each sees what the other made."""
    other = own_server(folder=server.folder).start()
    jobs = [(server, other)[turn % 2].submit({"prompt": "a cat", "seed": turn}) for turn in range(6)]
    for turn, job in enumerate(jobs):
        done = (other, server)[turn % 2].ended(job["id"])
        assert done["status"] == "done" and [image["seed"] for image in done["images"]] == [turn]
