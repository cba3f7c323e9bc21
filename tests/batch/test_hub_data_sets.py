"""Prompts of a data set on the hub, fetched by `datasets` itself from a hub on loopback."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

import loopback_hub

FETCH = "import sys, datasets; datasets.load_dataset(sys.argv[1], revision=sys.argv[2] or None)"
READ = """
import json, sys
from pictura.batch.sources import open_source

source = open_source(sys.argv[1])
rows = [row.request for row in source.rows()]
print(json.dumps([source.count(), source.digest, [(row.prompt, row.seed) for row in rows]]))
"""


def table(*prompts: str) -> bytes:
    import pyarrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"prompt": prompts, "seed": range(len(prompts))}), file)
    return file.getvalue()


@pytest.fixture
def hub():
    with loopback_hub.running() as running:
        yield running


def run(hub, home, *words):
    """A new process, since the library reads its settings once."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=120
    )


def test_prompts_come_from_the_cache_and_nobody_is_asked(hub, tmp_path):
    repository = hub.repositories["datasets/org/prompts"] = loopback_hub.Repository()
    first = repository.push({"README.md": b"# Prompts\n", "train.parquet": table("a cat", "a dog")})
    home = tmp_path / "home"
    before = run(hub, home, "-c", READ, "hf://datasets/org/prompts")
    assert before.returncode and "is not in the cache of datasets; download it first" in before.stderr
    assert hub.requests == [], "naming a data set downloads nothing"

    assert run(hub, home, "-c", FETCH, "org/prompts", "").returncode == 0
    assert any("train.parquet" in line for line in hub.requests)
    hub.requests.clear()
    repository.push({"train.parquet": table("something else")})
    read = run(hub, home, "-c", READ, "hf://datasets/org/prompts")
    assert json.loads(read.stdout)[::2] == [2, [["a cat", 0], ["a dog", 1]]], read.stderr
    pinned = run(hub, home, "-c", READ, f"hf://datasets/org/prompts@{first}")
    assert json.loads(pinned.stdout) == json.loads(read.stdout), pinned.stderr
    assert hub.requests == []


def test_a_batch_of_a_data_set_of_the_hub(hub, tmp_path):
    repository = hub.repositories["datasets/org/prompts"] = loopback_hub.Repository()
    files = {"train.parquet": table("a cat", "two stars"), "test.parquet": table("a rocket")}
    repository.push({"README.md": b"# Prompts\n", **files})
    assert run(hub, tmp_path / "home", "-c", FETCH, "org/prompts", "").returncode == 0
    command = "import sys; from pictura.cli import main; sys.exit(main())"
    given = ["-c", command, "batch", "hf://datasets/org/prompts", "--steps", "2"]
    given += ["--out", str(tmp_path / "out")]
    torn = run(hub, tmp_path / "home", *given)
    assert torn.returncode == 2 and "several splits (train, test); name one with --split" in torn.stderr
    hub.requests.clear()
    made = run(hub, tmp_path / "home", *given, "--split", "train")
    assert made.returncode == 0, made.stderr
    lines = (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()
    drawn = [(row["prompt"], row["seed"]) for row in map(json.loads, lines)]
    assert drawn == [("a cat", 0), ("two stars", 1)]
    assert hub.requests == []
