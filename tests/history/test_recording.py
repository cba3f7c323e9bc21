"""What Python draws is in the history by itself; whatever goes wrong there costs the entry alone."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import pictura
from crowds import together
from pictura import TextToImage
from pictura.errors import ParameterError
from pictura.history import History, recording
from pictura.history.checking import check
from pictura.picture import Picture

SOURCE = Path(pictura.__file__).parents[1]
TOY = Path(__file__).parents[1] / "toy"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user who said nothing about histories."""
    monkeypatch.delenv("PICTURA_HISTORY")
    monkeypatch.setenv("PICTURA_HOME", str(tmp_path / "own"))
    recording._tell.cache_clear()
    return tmp_path / "own"


@pytest.fixture(scope="module")
def model():
    return TextToImage.from_preset("toy")


def kept(home):
    with History(None, home) as history:
        return [entry.request for entry in history.walk()][::-1]


def test_pictures_are_there_when_the_call_returns(home, model):
    made = model.generate(["a cat", "a dog"], seed=4)
    assert kept(home) == [picture.request for picture in made]
    one = model.generate("a pizza", seed=9)
    with History(None, home) as history:
        (entry,) = history.search("pizza").entries
        np.testing.assert_array_equal(np.asarray(entry.picture()), np.asarray(one))
        assert entry.details["timings"]["total"] > 0 and entry.job is None


def test_told_not_to(home, model, monkeypatch):
    model.generate("a cat", history=False)
    TextToImage.from_preset("toy", history=False).generate("a cat")
    monkeypatch.setenv("PICTURA_HISTORY", "off")
    model.generate("a cat")
    assert not home.exists()
    model.generate("a cat", history=True, seed=1)  # said here and now
    assert [request.seed for request in kept(home)] == [1]


def test_another_history(home, model, history):
    model.generate("a cat", seed=3, history=history)
    own = TextToImage.from_preset("toy", history=history)
    own.generate("a dog", seed=4)
    assert [entry.request.seed for entry in history.walk()] == [4, 3] and not home.exists()


def test_events_of_a_stream_that_is_left_early(home, model):
    with closing(model.stream(["a", "b", "c"], seed=1, batch_size=1)) as events:
        next(event for event in events if isinstance(event, Picture))
    assert [request.seed for request in kept(home)] == [1]


def test_a_stream_that_is_forgotten_leaves_no_thread(home, model):
    events = model.stream(["a", "b"], seed=1, batch_size=1)
    next(event for event in events if isinstance(event, Picture))
    del events
    until = time.monotonic() + 10
    while any(thread.name == "pictura-history" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert [request.seed for request in kept(home)] == [1]


def test_only_the_best_of_several_is_kept(home, model):
    picture = model.generate("a cat", best_of=3, seed=1, scorer=lambda pictures: range(len(pictures)))
    assert kept(home) == [picture.request] and picture.request.seed == 3


def test_asyncio(home, model):
    made = asyncio.run(model.agenerate(["a", "b"], seed=7))
    assert kept(home) == [picture.request for picture in made]


def test_bad_calls_write_nothing(home, model):
    with pytest.raises(ParameterError):
        model.generate("a cat", num_steps=0)
    assert not home.exists()


def full_disk(path):
    """A folder in which nothing can be written."""
    path.write_bytes(b"")  # not a folder at all: root may write to any that is one
    return path / "home"


def test_a_history_that_cannot_be_written_costs_no_picture(home, model, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("PICTURA_HOME", str(full_disk(tmp_path / "file")))
    with caplog.at_level(logging.WARNING):
        assert len(model.generate(["a", "b"], seed=1)) == 2
        assert model.generate("c", seed=1).request.prompt == "c"
    (told,) = [record.getMessage() for record in caplog.records]
    assert "not kept in the history" in told and "PICTURA_HISTORY=off" in told and "\n" not in told


def test_no_room_for_pictures(home, model, caplog):
    model.generate("first", seed=1)
    images = home / "images"
    for path in sorted(images.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    images.rmdir()
    images.write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert model.generate("second", seed=2).request.seed == 2
    assert len(caplog.records) == 1 and len(kept(home)) == 1


def test_a_server_that_is_gone_is_asked_once_in_a_while(home, model, monkeypatch, tmp_path, caplog):
    asked = []
    opened = History.open
    monkeypatch.setattr(History, "open", lambda self: asked.append(1) or opened(self))
    monkeypatch.setenv("PICTURA_DATABASE", f"postgresql://nobody@/none?host={tmp_path}")
    with caplog.at_level(logging.WARNING):
        for seed in range(3):
            model.generate("a cat", seed=seed)
    assert len(asked) == 1 and len(caplog.records) == 1
    recording._silent.clear()  # a while later
    model.generate("a cat", seed=9)
    assert len(asked) == 2


def test_a_history_that_hangs_holds_nobody_for_long(home, model, monkeypatch, history, caplog):
    free = threading.Event()
    added = History.add_all

    def slowly(self, pictures):
        free.wait(30)
        return added(self, pictures)

    monkeypatch.setattr(History, "add_all", slowly)
    monkeypatch.setattr(recording, "PATIENCE", 0.05)
    monkeypatch.setattr(recording, "AHEAD", 4 * 64)
    monkeypatch.setattr(recording, "MANY", 2)
    with caplog.at_level(logging.WARNING):
        began = time.perf_counter()
        made = model.generate(["a cat"] * 9, num_steps=1, seed=0, history=history)
        assert len(made) == 9 and time.perf_counter() - began < 5
    assert "nothing could be kept" in caplog.text
    free.set()
    until = time.monotonic() + 10
    while any(thread.name == "pictura-history" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert {entry.request.seed for entry in history.walk()} >= {0, 1}


def test_one_bad_picture_costs_itself_alone(history, picture, caplog):
    good = [picture(seed=1), picture(seed=2)]
    bad = picture(seed=3).amended(timings={"total": float("nan")})  # no JSON
    recorder = recording.Recorder(history)
    recording._tell.cache_clear()
    with caplog.at_level(logging.WARNING):
        for one in (good[0], bad, good[1]):
            recorder.put(one)
        recorder.settle()
    assert [entry.request.seed for entry in history.walk()] == [2, 1] and len(caplog.records) == 1


def test_many_threads_keep_in_one_history(home, model):
    def draw(base):
        model.generate(["a"] * 5, seed=base, num_steps=1)

    together(draw, range(0, 400, 100))
    assert {r.seed for r in kept(home)} == {100 * i + j for i in range(4) for j in range(5)}


SCRIPT = """
import os, pictura
model = pictura.TextToImage.from_preset("toy")
model.generate("parent", seed=1)
child = os.fork()
if child == 0:
    model.generate("child", seed=2)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
model.generate("parent again", seed=3)
"""


def test_a_fork_has_connections_of_its_own(home):
    path = os.pathsep.join([str(SOURCE), str(TOY)])
    environment = {**os.environ, "PYTHONPATH": path, "PICTURA_HOME": str(home)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", SCRIPT], check=True, env=environment, timeout=120)
    assert [request.prompt for request in kept(home)] == ["parent", "child", "parent again"]


def test_the_end_of_a_process_waits_for_what_is_being_kept(home):
    code = """
import sys, time, pictura
from pictura.history import History, recording
from pictura.history.checking import check
added = History.add_all
History.add_all = lambda self, pictures: time.sleep(1) or added(self, pictures)
recording.PATIENCE = 0.01
pictura.TextToImage.from_preset("toy").generate("a cat", seed=5)
"""
    path = os.pathsep.join([str(SOURCE), str(TOY)])
    environment = {**os.environ, "PYTHONPATH": path, "PICTURA_HOME": str(home)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
    assert [request.seed for request in kept(home)] == [5]


FULL = """
import resource, sys
import pictura
from pictura.history import History
with History() as history:
    history.open()
model = pictura.TextToImage.from_preset("toy")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)  # larger files cannot be written
assert len(model.generate(["a", "b"], seed=1)) == 2
"""


@pytest.mark.parametrize("room", [0, 30_000])
def test_a_full_disk_costs_no_picture(home, room):
    path = os.pathsep.join([str(SOURCE), str(TOY)])
    environment = {**os.environ, "PYTHONPATH": path, "PICTURA_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(room)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "not kept in the history" in done.stderr and "Traceback" not in done.stderr
    with History(None, home) as history:  # there is room again
        assert check(history).sound and history.count() == 0
        TextToImage.from_preset("toy").generate("c", seed=3, history=history)
        assert history.count() == 1


DRAWING = """
import pictura
model = pictura.TextToImage.from_preset("toy")
for seed in range(1000):
    model.generate("a cat", seed=seed, num_steps=1)
    print(seed, flush=True)
"""


def test_a_killed_process_leaves_a_history_that_is_whole(home):
    path = os.pathsep.join([str(SOURCE), str(TOY)])
    environment = {**os.environ, "PYTHONPATH": path, "PICTURA_HOME": str(home)}
    told = set()
    for count in (1, 4, 11):
        command = [sys.executable, "-c", DRAWING]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(count):
                last = int(process.stdout.readline())
            process.kill()
        told |= set(range(last + 1))
    with History(None, home) as history:
        assert check(history).sound  # every row has its file
        assert {entry.request.seed for entry in history.walk()} >= told  # what a call returned is there


def test_drawing_loads_the_database_only_where_it_is_used():
    code = """
import sys, pictura
pictura.TextToImage.from_preset("toy").generate("a cat")
assert "sqlalchemy" not in sys.modules and "alembic" not in sys.modules
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(TOY)])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
