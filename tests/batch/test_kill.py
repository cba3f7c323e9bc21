"""Killed with -9 at random points and started again, a batch ends with the same files as one never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from small_batches import files, toy_preset

HERE = Path(__file__).parent
WINDOW, SEED = 4, 20261121
CANDIDATES = {"folder": 40, "webdataset": 80, "parquet": 240, "datasets": 40}
KILLS = {"folder": 8, "webdataset": 8, "parquet": 12, "datasets": 2}


def test_the_same_files_whenever_it_is_killed(tmp_path: Path) -> None:
    toy_preset(tmp_path / "toy")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, [HERE.parents[1] / "src", HERE.parent / "toy"])),
    }
    command = [sys.executable, str(HERE / "killed.py"), str(tmp_path), str(SEED)]
    command += [f"{form}={kills}" for form, kills in KILLS.items()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(KILLS)
    for told in map(json.loads, lines):
        form = told["format"]
        print(f"seed {SEED}, {form}: {len(told['points'])} kills, {told['points']}")
        assert len(told["points"]) >= KILLS[form]
        for again in told["parts"]:
            whole = files(tmp_path / f"{form}-ended-{again}")
            assert len(whole) > 5
            for name in told["drawn"]:
                assert files(tmp_path / f"{name}-ended-{again}") == whole, (name, again)
        # Drawn once, and again at most what was in flight: in the model, in the queue and at the keeper.
        once, drawn = told["drawn"][form], sum(told["drawn"].values())
        assert once == CANDIDATES[form] if told["parts"] == [False] else once > CANDIDATES[form]
        assert (
            once * len(told["drawn"]) <= drawn <= once * len(told["drawn"]) + 3 * WINDOW * len(told["points"])
        )
