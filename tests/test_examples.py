"""The programs in examples/ run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from pictura import TextToImage

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_teach_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = runpy.run_path(str(EXAMPLES / "teach_a_word.py"))["main"]
    main(tmp_path, epochs=1, known=0)
    assert (tmp_path / "before-and-after.png").exists() and "learnt: bullseye" in capsys.readouterr().out
    assert TextToImage.from_preset(tmp_path / "model").family.config()["taught"] == ["bullseye"]
