"""Models that are larger than memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pictura
from pictura import loading, measuring
from pictura.errors import ParameterError
from small_pipelines import saved


def test_free_memory_is_less_than_there_is() -> None:
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert 2**20 < measuring.free_memory() < int(lines["MemTotal"].split()[0]) * 1024


def test_a_model_that_does_not_fit_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not loading.load("scenes").streamed
    monkeypatch.setattr(measuring, "free_memory", lambda: 2**20)
    assert loading.load("scenes").streamed
    assert not loading.load("scenes", low_memory=False).streamed
    assert not loading.load("scenes", load_weights=False).streamed


def test_what_stays_in_the_file_is_neither_saved_nor_trained(tmp_path: Path) -> None:
    loaded = loading.load("scenes", low_memory=True)
    with pytest.raises(ParameterError, match="low_memory=False"):
        loading.save(loaded, tmp_path / "copy")
    with pytest.raises(ParameterError, match="low_memory=False"):
        loaded.trainable()


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_pictures_are_the_same(name: str, tmp_path: Path) -> None:
    """Several prompts, both encoders and the transformer read from the file step by step."""
    folder, drawn = saved(name, tmp_path), []
    for low_memory in (False, True):
        model = pictura.TextToImage.from_preset(folder, low_memory=low_memory)
        drawn.append(np.asarray(model.generate(["a cat", "a dog"], num_steps=3, seed=7, size=(64, 48))))
    assert np.array_equal(*drawn)
