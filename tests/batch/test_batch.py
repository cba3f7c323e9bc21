"""What `pictura.batch.run` promises, with the built-in model and with one that answers at once."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_batches import Instant, files

from installed import install
from pictura import Picture, Request, batch
from pictura.batch.ledger import Ledger
from pictura.batch.store import Store
from pictura.cli.app import run as command
from pictura.errors import Cancelled, EngineError, FileError, ParameterError

FORMS = ("folder", "parquet", "webdataset", "datasets")


def read(out: Path, form: str) -> list[dict[str, Any]]:
    """The rows of a finished data set as other libraries see them, "image" an array."""
    import datasets

    if form == "datasets":
        rows = datasets.load_from_disk(str(out))
    else:
        cache = str(out.parent / "cache")
        rows = datasets.load_dataset(str(out), split="train", cache_dir=cache)
    if form == "webdataset":
        return [{**row["json"], "image": np.asarray(row["png"])} for row in rows]
    return [{**row, "image": np.asarray(row["image"])} for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_other_libraries_read_the_outputs(form: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = batch.run(
        ["a cat", "two stars", "a rocket"], out, seed=7, num_images=2, num_steps=1, format=form, shard=4
    )
    assert (report.total, report.kept, report.failed, report.failures) == (6, 6, 0, None)
    rows = read(out, form)
    assert [row["prompt"] for row in rows] == ["a cat"] * 2 + ["two stars"] * 2 + ["a rocket"] * 2
    assert [row["seed"] for row in rows] == [7, 8, 9, 10, 11, 12]
    assert [(row["row"], row["repetition"]) for row in rows][:3] == [(0, 0), (0, 1), (1, 0)]
    assert {row["num_steps"] for row in rows} == {1} and len(rows[0]["model_digest"]) == 64
    from pictura import TextToImage

    alone = TextToImage.from_preset("scenes").generate("a rocket", num_steps=1, seed=12)
    assert (np.asarray(alone) == rows[-1]["image"]).all()
    if form == "folder":
        made = Picture.open(out / "00000002-1.png")
        assert made.request == alone.request
        assert json.loads(rows[5]["options"]) == alone.request.to_dict()["options"]


def test_the_command_and_imagefolder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import datasets

    (tmp_path / "p.txt").write_text("a cat\ntwo stars\n")
    words = ["batch", str(tmp_path / "p.txt"), "--out", str(tmp_path / "out"), "--steps", "1", "--seed", "3"]
    assert command([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["made"], told["resumed"]) == (2, 2, 0)
    found = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert found["prompt"][:] == ["a cat", "two stars"] and found["seed"][:] == [3, 4]
    assert [line["file_name"] for line in metadata(tmp_path / "out")] == ["00000000.png", "00000001.png"]
    assert command([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["made"], told["resumed"]) == (2, 0, 2)
    assert command([*words[:-1], "4"]) == 2
    assert "begun with another plan (seed: 3 -> 4)" in capsys.readouterr().err


def metadata(out: Path, name: str = "metadata.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text("utf-8").splitlines()]


def test_rows_say_more_than_the_command(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "num_steps": 3, "seed": 99}, {"prompt": "y"}, Request(prompt="z", size=(8, 9))]
    batch.run(rows, tmp_path / "out", model=Instant(), seed=10, num_steps=5, size="16x16")
    found = [(line["seed"], line["num_steps"]) for line in metadata(tmp_path / "out")]
    assert found == [(99, 3), (11, 5), (12, 5)]
    sizes = [Picture.open(path).request.size for path in sorted((tmp_path / "out").glob("*.png"))]
    assert sizes == [(16, 16), (16, 16), (8, 9)]


def test_bad_rows_fail_with_their_place_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a cat"}\n{"prompt": 3}\n{"prompt": "x", "size": "64x64"}\nno\n"a dog"\n')
    report = batch.run(path, tmp_path / "out", model="scenes", seed=1, num_steps=1)
    assert (report.kept, report.failed) == (2, 3)
    assert [line["file_name"] for line in metadata(tmp_path / "out")] == ["00000000.png", "00000004.png"]
    assert [line["seed"] for line in metadata(tmp_path / "out")] == [1, 5]
    told = metadata(tmp_path / "out", "failures.jsonl")
    assert [line["place"] for line in told] == ["rows.jsonl:2", "rows.jsonl:3", "rows.jsonl:4"]
    assert "size" in told[1]["reason"] and told[1]["prompt"] == "x"
    assert command(["batch", str(path), "--out", str(tmp_path / "out"), "--steps", "1"]) == 1


class Strict(Instant):
    """Ends its stream at a request that it cannot use, as models do; memory is tidied at every request."""

    def stream(self, inputs: Iterator[Request], **more: Any) -> Iterator[Any]:
        def checked() -> Iterator[Request]:
            for request in inputs:
                gc.collect()
                if request.prompt == "bad":
                    raise ParameterError("not this one", parameter="prompt")
                yield request

        yield from super().stream(checked(), **more)


def test_rows_after_several_that_the_model_refuses_are_drawn(tmp_path: Path) -> None:
    prompts = ["bad", "a", "bad", "bad", "c", "bad", "d", "e"]
    report = batch.run(prompts, tmp_path / "out", model=Strict(), seed=1)
    assert (report.kept, report.failed) == (4, 4)


def test_pictures_that_nobody_drew_are_missed(tmp_path: Path) -> None:
    class Lazy(Instant):
        def stream(self, inputs: Iterator[Request], **more: Any) -> Iterator[Any]:
            yield from list(super().stream(inputs, **more))[:-1]

    with pytest.raises(EngineError, match="left 1 pictures out"):
        batch.run(["a", "b"], tmp_path / "out", model=Lazy(), seed=1)
    assert batch.run(["a", "b"], tmp_path / "out", model=Instant(), seed=1).made == 1


class Flaky(Instant):
    """Refuses some seeds until `healed`."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__()
        self.bad = bad

    def stream(self, inputs: Iterator[Request], **more: Any) -> Iterator[Any]:
        from pictura import Failure

        for event in super().stream(inputs, **more):
            if event.request.seed in self.bad:
                event = Failure(index=event.index, request=event.request, error=EngineError("overloaded"))
            yield event


@pytest.mark.parametrize("form", FORMS)
def test_retry_failed_ends_with_the_same_files(form: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"seed": 0, "format": form, "shard": 3, "batch_size": 2}
    prompts = [f"prompt {n}" for n in range(10)]
    batch.run(prompts, tmp_path / "whole", model=Instant(), **settings)
    model = Flaky({2, 3, 7})
    report = batch.run(prompts, tmp_path / "out", model=model, **settings)
    assert report.failed == 3 and report.failures is not None
    assert len(read(tmp_path / "out", form)) == 7
    model.bad = {7}
    report = batch.run(prompts, tmp_path / "out", model=model, retry_failed=True, **settings)
    assert (report.failed, report.made) == (1, 2)
    model.bad = set()
    assert batch.run(prompts, tmp_path / "out", model=model, **settings).failed == 1  # nobody asked again
    report = batch.run(prompts, tmp_path / "out", model=model, retry_failed=True, **settings)
    assert (report.failed, report.made) == (0, 1)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert batch.run(prompts, tmp_path / "out", model=model, retry_failed=True, **settings).made == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")  # nothing was left to be tried again


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": 3}, "parameters"),
        ({"num_images": 2}, "num_images: 1 -> 2"),
        ({"format": "parquet"}, "format: 'folder' -> 'parquet'"),
        ({"seed": 8}, "seed: 7 -> 8"),
        ({"filters": ["blank"]}, "filters"),
        ({"prompts": ["a", "c"]}, "SHA-256"),
        ({"model": "other"}, "model: 'instant' -> 'other'"),
    ],
)
def test_another_plan_is_refused_and_nothing_touched(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    batch.run(["a", "b"], tmp_path / "out", model=Instant(), seed=7)
    before = files(tmp_path / "out")
    model = Instant()
    model.name = change.pop("model", model.name)
    with pytest.raises(FileError, match=words):
        batch.run(change.pop("prompts", ["a", "b"]), tmp_path / "out", model=model, **{"seed": 7, **change})
    assert files(tmp_path / "out") == before and not model.drawn


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(FileError, match="holds other files"):
        batch.run(["a"], tmp_path, model=Instant())
    with pytest.raises(FileError, match="is a file"):
        batch.run(["a"], tmp_path / "diary.txt", model=Instant())
    assert files(tmp_path).keys() == {"diary.txt"}


def test_a_second_run_at_once_is_refused(tmp_path: Path) -> None:
    steps = batch.follow(["a", "b"], tmp_path / "out", model=Instant(), seed=1)
    next(steps)
    with pytest.raises(FileError, match="another run is writing"):
        batch.run(["a", "b"], tmp_path / "out", model=Instant(), seed=1)
    for _ in steps:
        pass
    assert len(metadata(tmp_path / "out")) == 2


def test_without_a_seed_one_is_drawn_and_remembered(tmp_path: Path) -> None:
    class Stopping(Instant):
        def stream(self, inputs: Iterator[Request], **more: Any) -> Iterator[Any]:
            for number, event in enumerate(super().stream(inputs, **more)):
                if number == 3:
                    raise KeyboardInterrupt
                yield event

    with pytest.raises(Cancelled, match="the same command goes on"):
        batch.run(["p"] * 6, tmp_path / "out", model=Stopping())
    first = Picture.open(tmp_path / "out" / "00000000.png").request.seed
    assert first is not None
    report = batch.run(["p"] * 6, tmp_path / "out", model=Instant())
    assert report.resumed == 3
    assert [line["seed"] for line in metadata(tmp_path / "out")] == [first + n for n in range(6)]


def test_many_pictures_go_into_folders_of_ten_thousand(tmp_path: Path) -> None:
    from pictura.batch.plan import Plan

    plan = Plan(source="", rows=1_000_000, model="x", model_digest=None, seed=0)
    assert plan.file_name(0) == "00000/00000000.png"
    assert plan.file_name(999_999) == "00099/00999999.png"
    plan = Plan(source="", rows=10_000, model="x", model_digest=None, seed=0)
    assert plan.file_name(9_999) == "00009999.png"


# Judging


def brightness(pictures: Any) -> list[float]:
    return [float(np.asarray(picture).mean()) for picture in pictures]


def test_the_best_of_several_by_a_scorer(tmp_path: Path) -> None:
    model = Instant()
    batch.run(["a", "b"], tmp_path / "out", model=model, seed=0, best_of=4, scorers=[brightness])
    assert model.drawn == list(range(8))
    for row, line in enumerate(metadata(tmp_path / "out")):
        scores = {
            seed: float(np.random.default_rng([seed, 1]).integers(0, 255, (8, 8, 3), np.uint8).mean())
            for seed in range(4 * row, 4 * row + 4)
        }
        assert line["seed"] == max(scores, key=scores.__getitem__)
        (score,) = line["scores"].values()
        assert score == pytest.approx(max(scores.values()))


@pytest.mark.parametrize("answer", [float("nan"), float("inf"), None, "good"])
def test_a_score_that_is_no_number_fails_its_picture_alone(answer: Any, tmp_path: Path) -> None:
    def odd(pictures: Any) -> list[Any]:
        return [answer if picture.request.prompt == "odd" else 1.0 for picture in pictures]

    report = batch.run(["a", "odd", "b"], tmp_path / "out", model=Instant(), seed=1, scorers=[odd])
    assert (report.kept, report.failed) == (2, 1)
    assert "is no finite number" in metadata(tmp_path / "out", "failures.jsonl")[0]["reason"]


def test_a_file_of_somebody_else_is_not_written_over(tmp_path: Path) -> None:
    def own(request: Request) -> None:
        (tmp_path / "out" / "00000001.png").write_bytes(b"mine")

    with pytest.raises(FileError, match="is of something else"):
        batch.run(["a", "b"], tmp_path / "out", model=Instant(own), seed=1)
    assert (tmp_path / "out" / "00000001.png").read_bytes() == b"mine"
    (tmp_path / "out" / "00000001.png").unlink()
    assert batch.run(["a", "b"], tmp_path / "out", model=Instant(), seed=1).kept == 2


def test_candidates_on_the_disk_are_not_drawn_again(tmp_path: Path) -> None:
    """Of 40 for one picture, most are stored and none is settled when it is broken off."""

    def stop(request: Request) -> None:
        if request.seed == 30 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt

    stopped: list[bool] = []
    model = Instant(stop)
    settings: dict[str, Any] = {"model": model, "seed": 0, "best_of": 40, "scorers": [brightness]}
    with pytest.raises(Cancelled):
        batch.run(["a"], tmp_path / "out", **settings)
    assert not list((tmp_path / "out").glob("*.png"))
    batch.run(["a"], tmp_path / "out", **settings)
    assert model.drawn == list(range(40))
    batch.run(["a"], tmp_path / "whole", **settings)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_filters_and_least_scores_drop_and_say_why(tmp_path: Path) -> None:
    class Sometimes(Instant):
        def stream(self, inputs: Iterator[Request], **more: Any) -> Iterator[Any]:
            from dataclasses import replace

            for event in super().stream(inputs, **more):
                blank = Image.new("RGB", (8, 8), "black")
                yield replace(event, image=blank) if event.request.prompt == "nothing" else event

    def unsafe(pictures: Any) -> list[str | None]:
        return ["a knife" if picture.request.prompt == "knife" else None for picture in pictures]

    settings: dict[str, Any] = {"filters": ["blank", unsafe], "scorers": [brightness], "min_score": 100.0}
    report = batch.run(
        ["cat", "nothing", "knife", "dog"], tmp_path / "o", model=Sometimes(), seed=1, **settings
    )
    assert (report.kept, report.dropped, report.failed) == (2, 2, 0)
    told = metadata(tmp_path / "o", "dropped.jsonl")
    assert [line["row"] for line in told] == [1, 2]
    assert told[0]["reason"] == "blank: the picture is blank" and told[1]["reason"].endswith("a knife")
    assert sorted(path.name for path in (tmp_path / "o").glob("*.png")) == ["00000000.png", "00000003.png"]
    report = batch.run(["cat"], tmp_path / "p", model=Instant(), scorers=[brightness], min_score=300.0)
    assert "is below 300" in metadata(tmp_path / "p", "dropped.jsonl")[0]["reason"]


def test_a_scorer_that_fails_loses_no_picture(tmp_path: Path) -> None:
    broken = [True]

    def moody(pictures: Any) -> list[float]:
        if broken[0]:
            raise RuntimeError("no memory")
        return [1.0] * len(pictures)

    model = Instant()
    settings: dict[str, Any] = {"model": model, "seed": 1, "scorers": [moody]}
    assert batch.run(["a", "b"], tmp_path / "out", **settings).failed == 2
    assert "no memory" in metadata(tmp_path / "out", "failures.jsonl")[0]["reason"]
    broken[0] = False
    assert batch.run(["a", "b"], tmp_path / "out", retry_failed=True, **settings).kept == 2
    assert model.drawn == [1, 2]  # what was drawn (and maybe paid for) was not drawn again


def test_duplicates_are_dropped_and_the_first_kept(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "seed": seed} for seed in (1, 2, 1, 3, 2)]
    report = batch.run(rows, tmp_path / "out", model=Instant(), dedup="exact", format="parquet", shard=2)
    assert (report.kept, report.dropped) == (3, 2)
    assert [row["seed"] for row in read(tmp_path / "out", "parquet")] == [1, 2, 3]
    told = metadata(tmp_path / "out", "dropped.jsonl")
    assert [(line["row"], line["reason"]) for line in told] == [
        (2, "looks like 00000000"),
        (4, "looks like 00000001"),
    ]


def test_a_perceptual_hash_is_that_of_the_transform(tmp_path: Path) -> None:
    """Against scipy's DCT; and near for a picture that was compressed, far for another one."""
    from scipy.fft import dctn

    from pictura.batch.looks import Neighbours, perceptual_hash

    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 255, (9, 7, 3), np.uint8))
    picture = small.resize((140, 180), Image.Resampling.BICUBIC)
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    low = dctn(grey)[1:9, 1:9]
    wanted = int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big", signed=True)
    assert perceptual_hash(picture) == wanted
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=40)
    again = Image.open(buffer).resize((97, 101))
    other = Image.fromarray(rng.integers(0, 255, (9, 7, 3), np.uint8)).resize((140, 180))
    near = Neighbours(6, Ledger(tmp_path / "ledger"))
    near.add(wanted, 5)
    assert near.near(perceptual_hash(again)) == 5
    assert near.near(perceptual_hash(other)) is None


def test_neighbours_are_those_of_a_slow_search(tmp_path: Path) -> None:
    from pictura.batch.looks import Neighbours

    rng = np.random.default_rng(1)
    hashes = [int(x) for x in rng.integers(-(2**63), 2**63 - 1, 60)]
    hashes += [
        value ^ (1 << int(bit)) ^ (1 << int(more))
        for value in hashes
        for bit, more in [rng.integers(0, 62, 2)]
    ]
    for distance in (0, 1, 2, 5):
        near = Neighbours(distance, Ledger(tmp_path / str(distance)))
        for number, value in enumerate(hashes):
            slow = [n for n in range(number) if ((hashes[n] ^ value) % 2**64).bit_count() <= distance]
            assert near.near(value) == min(slow, default=None)
            near.add(value, number)


# Disks

LIMITED = """
import resource, sys
sys.path[:0] = sys.argv[1].split(":")
from small_batches import Instant
from pictura import batch
if sys.argv[4] != "free":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    batch.run([f"prompt {n}" for n in range(120)], sys.argv[2], model=Instant(side=24), seed=4,
              format=sys.argv[3], shard=40)
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(3)
"""


@pytest.mark.parametrize(("form", "limit"), [("folder", 100_000), ("webdataset", 80_000), ("parquet", 1500)])
def test_a_full_disk_stops_cleanly_and_goes_on(form: str, limit: int, tmp_path: Path) -> None:
    """No file may grow beyond a limit, which hits the ledger, the shards or the pictures themselves."""
    pytest.importorskip("resource")
    paths = os.pathsep.join([str(Path(batch.__file__).parents[2]), str(Path(__file__).parent)])

    def attempt(out: str, limit: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LIMITED, paths, str(tmp_path / out), form, str(limit)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    full = attempt("out", limit)
    assert full.returncode == 3, full.stdout + full.stderr
    assert full.stdout.startswith("FileError") and "run again" in full.stdout + "run again" * (
        "no room left" in full.stdout
    )
    assert attempt("out", "free").returncode == 0
    assert attempt("whole", "free").returncode == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_an_order_that_makes_sense_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every picture: its file fsynced, renamed, its folder fsynced, and only then the ledger."""
    told: list[str] = []
    real_fsync, real_replace, real_commit = os.fsync, os.replace, Ledger.commit

    def fsync(handle: int) -> None:
        told.append(f"fsync {os.readlink(f'/proc/self/fd/{handle}')}")
        real_fsync(handle)

    def replace(old: Any, new: Any) -> None:
        told.append(f"rename {new}")
        real_replace(old, new)

    def commit(self: Ledger) -> Any:
        told.append("commit")
        return real_commit(self)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(Ledger, "commit", commit)
    batch.run(["a"], tmp_path / "out", model=Instant(), seed=1)
    at = told.index(f"rename {tmp_path}/out/00000000.png")
    assert told[at - 1].startswith("fsync") and told[at - 1].endswith("/tmp/00000000.png")
    between = told[at + 1 : told.index("commit", at)]
    assert f"fsync {tmp_path}/out" in between
    told.clear()  # and for many that wait for their shard: one fsync, and only then the ledger
    batch.run(["a"] * 16, tmp_path / "tar", model=Instant(), seed=1, format="webdataset", batch_size=16)
    spool = f"{tmp_path}/tar/.pictura/spool"
    ours = [line for line in told if line.startswith(f"fsync {spool}") or line == "commit"]
    assert ours[:3] == [f"fsync {spool}", f"fsync {spool}/00000001.spool", "commit"]
    assert sum("00000001.spool" in line for line in ours) <= 16
    assert told.index("commit") < told.index(f"rename {tmp_path}/tar/data-000000.tar")


WEBDATASET = """
import sys, webdataset
for row in webdataset.WebDataset(sys.argv[1], shardshuffle=False).decode("rgb8"):
    print(row["__key__"], row["txt"], row["json"]["seed"], row["png"].shape)
"""


def test_going_on_reads_no_whole_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's own plan of every query of a run that has nothing left to do, and of one that retries."""
    import sqlite3

    batch.run(["a", "b"], tmp_path / "out", model=Flaky({2}), seed=1)
    asked: list[str] = []
    real = sqlite3.connect

    def connect(*args: Any, **more: Any) -> sqlite3.Connection:
        found = real(*args, **more)
        found.set_trace_callback(asked.append)
        return found

    monkeypatch.setattr(sqlite3, "connect", connect)
    batch.run(["a", "b"], tmp_path / "out", model=Instant())
    steps = batch.follow(["a", "b"], tmp_path / "out", model=Instant(), retry_failed=True)
    next(steps)
    steps.close()
    ledger = real(tmp_path / "out" / ".pictura" / "ledger.sqlite")
    queries = [text for text in asked if text.startswith(("SELECT", "UPDATE"))]
    assert sum("picture" in text for text in queries) >= 3
    for query in queries:
        plan = " ".join(str(row) for row in ledger.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "SCAN picture" not in plan, query
    ledger.close()


def test_shards_are_plain_tar_files_of_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        batch.run(["x", "y"], tmp_path / name, model=Instant(), seed=1, format="webdataset")
    shard = tmp_path / "a" / "data-000000.tar"
    with tarfile.open(shard) as tar:
        assert tar.getnames() == [f"0000000{n}.{kind}" for n in (0, 1) for kind in ("png", "txt", "json")]
    assert files(tmp_path / "a") == files(tmp_path / "b")
    done = subprocess.run(
        [sys.executable, "-c", WEBDATASET, str(shard)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "00000000 x 1 (8, 8, 3)\n00000001 y 2 (8, 8, 3)\n"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_images": 0}, "num_images is 0"),
        ({"best_of": True}, "best_of is True"),
        ({"seed": -1}, "seed is -1"),
        ({"format": "folders"}, "did you mean 'folder'"),
        ({"dedup": "roughly"}, "dedup is 'roughly'"),
        ({"dedup": "perceptual:40"}, "0..16 bits"),
        ({"min_score": 1.0}, "min_score needs a scorer"),
        ({"scorers": ["clip"]}, "scorer 'clip' is unknown"),
        ({"filters": ["blan"]}, "did you mean 'blank'"),
        ({"engine": "rai"}, "did you mean 'ray'"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"shard": "x"}, "shard is 'x'"),
        ({"best_of": 2}, "best_of needs a scorer"),
        ({"filters": ["blank", "blank"]}, "two filters are called 'blank'"),
    ],
)
def test_settings_are_checked_before_anything_is_made(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=words):
        batch.run(["a"], tmp_path / "out", model=Instant(), **settings)
    assert not (tmp_path / "out").exists()


def test_a_damaged_ledger_or_plan_is_told(tmp_path: Path) -> None:
    batch.run(["a"], tmp_path / "out", model=Instant(), seed=1)
    (tmp_path / "out" / ".pictura" / "ledger.sqlite").write_bytes(b"not a data base at all" * 100)
    with pytest.raises(FileError, match="cannot be used"):
        batch.run(["a"], tmp_path / "out", model=Instant(), seed=1)
    (tmp_path / "out" / ".pictura" / "plan.json").write_text("{")
    with pytest.raises(FileError, match="cannot be read"):
        batch.run(["a"], tmp_path / "out", model=Instant(), seed=1)
    Store(tmp_path / "new").close()


THEIRS = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from small_batches import Instant
from pictura import batch
from pictura.batch import filters, outputs
assert "theirs" in filters.names() and "listed" in outputs.names()
report = batch.run(["a", "b", "c"], sys.argv[2], model=Instant(), seed=1, filters=["theirs"], format="listed")
print(report.kept, report.dropped)
"""
PACKAGE = """
from pictura.batch.outputs import Output

def refuse(pictures):
    return ["b is not wanted" if picture.request.prompt == "b" else None for picture in pictures]

def finish(store, ledger, plan):
    store.put(store.out / "list.txt", " ".join(e.facts["prompt"] for e in ledger.entries(0)).encode())

OUTPUT = Output(help="a list", files="*.png", finish=finish)
"""


def test_third_parties_add_filters_and_formats_by_entry_point(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(PACKAGE)
    points = {"pictura.filters": {"theirs": "theirs:refuse"}, "pictura.outputs": {"listed": "theirs:OUTPUT"}}
    install(tmp_path, "theirs", points)
    paths = map(str, [Path(batch.__file__).parents[2], Path(__file__).parent, tmp_path])
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, os.pathsep.join(paths), str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "2 1\n", done.stderr
    assert (tmp_path / "out" / "list.txt").read_text() == "a c"


def test_words_are_chosen_by_the_batch_and_part_of_its_plan(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.mkdir()
    (lines / "animal.txt").write_text("cat\ndog\nowl\n")
    own = tmp_path / "mine.json"
    own.write_text(json.dumps({"soft": {"prompt": "{prompt}, soft light"}}))
    prompts = ["a __animal__"] * 8 + ["a {red|blue} __nothing__"]
    settings: dict[str, Any] = {"seed": 7, "wildcards": lines, "styles": own, "options": {"style": ["soft"]}}
    out = tmp_path / "out"
    report = batch.run(prompts, out, model=Instant(), **settings)
    assert (report.kept, report.failed) == (8, 1)
    assert "__nothing__" in (out / "failures.jsonl").read_text()
    made = [Picture.open(out / f"{row:08d}.png").request for row in range(8)]
    assert {one.prompt for one in made} <= {f"a {name}, soft light" for name in ("cat", "dog", "owl")}
    assert len({one.prompt for one in made}) > 1 and {one.options["template"] for one in made} == {prompts[0]}

    again = Instant()
    (out / ".pictura" / "ledger.sqlite").unlink()  # as after a kill before anything was put down
    assert batch.run(prompts, out, model=again, **settings).kept == 8 and not again.drawn

    (lines / "animal.txt").write_text("cat\ndog\n")
    with pytest.raises(FileError, match="wildcards"):
        batch.run(prompts, out, model=Instant(), **settings)
    (lines / "animal.txt").write_text("# the same\ncat\ndog\nowl\n\n")
    own.write_text(json.dumps({"soft": {"prompt": "{prompt}, hard light"}}))
    with pytest.raises(FileError, match="styles"):
        batch.run(prompts, out, model=Instant(), **settings)
    with pytest.raises(ParameterError, match="no folder"):
        batch.run(prompts, out, model=Instant(), **{**settings, "wildcards": own})


def test_the_command_puts_prompts_into_words(tmp_path: Path) -> None:
    (tmp_path / "animal.txt").write_text("cat\n")
    (tmp_path / "prompts.txt").write_text("a (__animal__)\n")
    said = ["batch", str(tmp_path / "prompts.txt"), "--seed", "3", "--steps", "1"]
    said += ["--wildcards", str(tmp_path), "--style", "watercolor"]
    assert command([*said, "--out", str(tmp_path / "out")]) == 0
    made = Picture.open(tmp_path / "out" / "00000000.png").request
    assert (
        made.options["template"] == "a (__animal__)" and "a (cat)" in made.prompt and "__" not in made.prompt
    )
    assert len(made.prompt) > len("a (cat)") and made.options["style"] == ("watercolor",)
    plain = [*said, "--prompt-syntax", "plain", "--no-strict"]
    assert command([*plain, "--out", str(tmp_path / "plain")]) == 0
    assert "__animal__" in Picture.open(tmp_path / "plain" / "00000000.png").request.prompt
    assert command([*plain, "--out", str(tmp_path / "out")]) != 0  # another plan
