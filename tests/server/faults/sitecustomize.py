"""What happens to servers under test, loaded by Python itself when their processes start.

PICTURA_TEST_FAULT is JSON: {"role": "api" or "worker", "at": "module:name", "when": "before" or "after",
"nth": 1, "do": "kill" or "kill both", "mark": a file that is there once it has happened}. The product knows
nothing of it: a function is wrapped from outside.
PICTURA_TEST_CLOCK (seconds) makes the wall clock jump to and fro. PICTURA_TEST_MEMORY (bytes) limits what
workers may take.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import resource
import signal
import sys
import time

ROLE = "worker" if "pictura.server.worker" in sys.orig_argv else "api" if "serve" in sys.orig_argv else ""


def end(do):
    if do == "kill both":
        other = os.getppid() if ROLE == "worker" else None
        if other is None:
            others = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent(pid) == os.getpid()]
        else:
            others = [other]
        for pid in others:
            os.kill(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def wrapped(function, fault):
    count = itertools.count(1)

    def strike():
        if next(count) != fault["nth"]:
            return
        try:  # once, whoever is started again
            os.close(os.open(fault["mark"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        end(fault["do"])

    @functools.wraps(function)
    def call(*args, **kwargs):
        if fault["when"] == "before":
            strike()
        result = function(*args, **kwargs)
        if fault["when"] == "after":
            strike()
        return result

    return call


def install(fault):
    module, _, path = fault["at"].partition(":")
    owner = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, name, wrapped(getattr(owner, name), fault))


def jumping(seconds):
    """time.time and time.time_ns go forward and back by so much, every second call."""
    true, true_ns, count = time.time, time.time_ns, itertools.count()
    time.time = lambda: true() + seconds * (-1) ** next(count)
    time.time_ns = lambda: true_ns() + int(seconds * 1e9) * (-1) ** next(count)


def deadly():
    """A toy that dies of the word "deadly"."""
    from pictura_toy.family import Toy

    run = Toy.run

    def dies(self, request, note):
        if "deadly" in request.prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(self, request, note)

    Toy.run = dies


def hungry():
    """A toy that needs a terabyte for the word "hungry"."""
    import zlib

    import torch
    from pictura_toy.family import WORDS, Toy

    evaluate, word = Toy.evaluate, zlib.crc32(b"hungry") % WORDS

    def eats(self, net, variant, **inputs):
        if net == "text" and (inputs["ids"] == word).any():
            torch.empty(1 << 40, dtype=torch.uint8)
        return evaluate(self, net, variant, **inputs)

    Toy.evaluate = eats


if ROLE:
    if os.environ.get("PICTURA_TEST_FAULT"):
        spec = json.loads(os.environ["PICTURA_TEST_FAULT"])
        if spec["role"] == ROLE:
            install(spec)
    if os.environ.get("PICTURA_TEST_CLOCK"):
        jumping(float(os.environ["PICTURA_TEST_CLOCK"]))
    if os.environ.get("PICTURA_TEST_DEADLY") and ROLE == "worker":
        deadly()
    if os.environ.get("PICTURA_TEST_MEMORY") and ROLE == "worker":
        most = int(os.environ["PICTURA_TEST_MEMORY"])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        hungry()
