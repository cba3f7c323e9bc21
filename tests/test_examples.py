"""The programs in examples/ run."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

from pictura import TextToImage

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_teach_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLES / "teach_a_word.py"))["main"]
    main(tmp_path, epochs=1, known=0)
    assert (tmp_path / "before-and-after.png").exists() and "learnt: bullseye" in capsys.readouterr().out
    assert TextToImage.from_preset(tmp_path / "model").family.config()["taught"] == ["bullseye"]


def test_distilabel_pictures(tmp_path: Path) -> None:
    """In a process of its own, as pipelines fork theirs."""
    pytest.importorskip("distilabel")
    program = [sys.executable, "-W", "ignore", EXAMPLES / "distilabel_pictures.py", tmp_path / "out"]
    subprocess.run(program, check=True, capture_output=True, timeout=300)
    data = datasets.load_from_disk(tmp_path / "out")
    assert data.features["image"] == datasets.Image() and len(data) == 12
    assert data[0]["prompt"] == "a cat on a blue background"
    corner = data[0]["image"].convert("RGB").getpixel((4, 4))
    assert corner[2] > 150 > corner[0], "the background is not blue"
