"""Every benchmark runs in tiny settings, and the page is what their results say. Nothing is timed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("[a-z]*.py"))


def run(script: str, *args: str | Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCHMARKS / f"{script}.py"), *map(str, args)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_each_runs_and_the_page_tells_all(tmp_path: Path) -> None:
    for script in SCRIPTS:
        run(script, "--quick", "--out", tmp_path)
        content = json.loads((tmp_path / f"{script}.json").read_text("utf-8"))
        assert (content["name"], content["quick"]) == (script, True)
        assert content["results"] and content["machine"]["cores"] >= 1
    run("_page", "--results", tmp_path, "--page", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text("utf-8")
    assert page.count("\n## ") == len(SCRIPTS)


def test_the_page_is_that_of_the_results(tmp_path: Path) -> None:
    run("_page", "--page", tmp_path / "page.md")
    page = BENCHMARKS.parent / "docs" / "performance.md"
    assert (tmp_path / "page.md").read_text("utf-8") == page.read_text("utf-8")
