"""Teaching the built-in family a word: a spare row of its embedding is trained, saved and found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pictura import ParameterError, TextToImage

SMALL = {"width": 64, "heads": 1, "hidden": 64, "depth": 1, "text_depth": 1, "coefficients": 16}


@pytest.fixture
def model() -> TextToImage:
    torch.manual_seed(0)
    return TextToImage.from_preset("scenes", load_weights=False, **SMALL)


def rows(*words: str) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    plain = [
        Image.new("RGB", (100, 60), tuple(rng.integers(0, 255, 3).tolist()))
        for _ in range(max(20, len(words)))
    ]
    return [{"images": image, "prompts": f"a {words[at % len(words)]}"} for at, image in enumerate(plain)]


def test_a_new_word_is_learnt_and_kept(model: TextToImage, tmp_path: Path) -> None:
    assert any("bullseye" in note for note in model.generate("a bullseye", num_steps=1).notes)
    model.compile(metrics=["mse", "mae"], learning_rate=1e-2)
    before = model.backbone["text"].state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    history = model.fit(rows("bullseye", "cat"), epochs=2, batch_size=10)
    assert history.new_words == ("bullseye",)
    assert history.history["loss"] == pytest.approx(history.history["mse"], rel=1e-5)
    assert model.generate("a bullseye", num_steps=1).notes == ()
    after = model.backbone["text"].state_dict()
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    assert changed
    assert model.fit(rows("bullseye"), batch_size=20).new_words == ()
    model.save_to_preset(tmp_path / "taught")
    again = TextToImage.from_preset(tmp_path / "taught")
    assert again.digest == model.digest
    one, two = (each.generate("two cats", seed=1, num_steps=2) for each in (model, again))
    assert np.array_equal(one, two) and two.notes == ()
    assert again.generate("a bullseye", num_steps=1).notes == ()


def test_there_is_room_for_so_many_words_only(model: TextToImage) -> None:
    with pytest.raises(ParameterError, match="room for") as caught:
        model.fit(rows(*(f"word{chr(97 + at // 26)}{chr(97 + at % 26)}" for at in range(60))))
    assert caught.value.parameter == "prompts"
    assert any("wordaa" in note for note in model.generate("a wordaa", num_steps=1).notes)  # none was taken
