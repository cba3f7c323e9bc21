"""The contract of metrics, scorers and checkers: every one that discovery finds, and third parties' ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pictura
from installed import install
from pictura.datasets.scenes.stream import example
from pictura.evaluation import checkers, metrics, scorers
from pictura.evaluation.metrics import Sample

torch = pytest.importorskip("torch")

THEIRS = {
    "metrics": ("pictura.metrics", "METRIC", "metric_named('theirs').measure(None) == 4"),
    "scorers": ("pictura.scorers", "score", "scorer_named('theirs')([1, 2]) == [0, 1]"),
    "checkers": ("pictura.checkers", "look", "checker_named('theirs')(None) == 'nothing'"),
}
MODULE = """
from pictura.evaluation.metrics import Metric

METRIC = Metric(help="four", higher_is_better=True, measure=lambda sample: 4.0)
def score(pictures): return list(range(len(pictures)))
def look(image): return "nothing"
"""


@pytest.mark.parametrize("name", [n for n in metrics.names() if not metrics.metric_named(n).needs])
def test_real_pictures_measure_better_than_broken_ones(name: str) -> None:
    """Against real scenes, other real scenes beat one scene repeated with noise."""
    metric = metrics.metric_named(name)
    n = max(metric.least, 60)
    shown = [example(i, "validation", basic=True) for i in range(2 * n)]
    real, reference = [s.image() for s in shown[:n]], [s.image() for s in shown[n:]]
    rng = np.random.default_rng(0)
    broken = [(real[0] + rng.normal(0, 30, real[0].shape)).clip(0, 255).astype(np.uint8) for _ in range(n)]
    prompts = [s.prompt for s in shown[:n]]
    good, bad = (
        metric.measure(Sample(pictures=p, prompts=prompts, reference=reference)) for p in (real, broken)
    )
    assert (good > bad) == metric.higher_is_better, (good, bad)


@pytest.mark.parametrize("kind", THEIRS)
def test_third_parties_add_theirs_by_entry_point(kind: str, tmp_path: Path) -> None:
    group, attribute, check = THEIRS[kind]
    (tmp_path / "theirs.py").write_text(MODULE)
    install(tmp_path, "theirs", {group: {"theirs": f"theirs:{attribute}"}})
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"from pictura.evaluation.{kind} import *\n"
        f"assert 'theirs' in names() and {check}\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, done.stderr


def test_a_scorer_is_no_checker() -> None:
    """What chooses must not be what grades first: no scorer is the template matcher."""
    assert set(scorers.names()) & set(checkers.names()) == set()
    assert "template" not in Path(scorers.__path__[0]).joinpath("scene_detector.py").read_text()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(pictura.__file__).parents[1])}
