"""KerasHub's own `generate` of Stable Diffusion 3, whole, against ours on the preset that it saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_keras_sd3  # chooses the backend
import torch
from test_keras_sd3 import backbone

from pictura import TextToImage

from keras_hub.models import CLIPPreprocessor, CLIPTokenizer  # isort: skip
from keras_hub.models import StableDiffusion3TextToImage, StableDiffusion3TextToImagePreprocessor  # isort: skip
from keras_hub.src.models import text_to_image  # isort: skip
from keras_hub.tokenizers import BytePairTokenizer  # isort: skip

LETTERS = "abcdefghijklmnopqrstuv"
MERGES = ("r e", "re d</w>", "c a", "ca t</w>")
WORDS = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *(merge.replace(" ", "") for merge in MERGES)]
VOCABULARY = {word: i for i, word in enumerate([*WORDS, "<|startoftext|>", "<|endoftext|>"])}


def tokens(name: str, pad_with_end_token: bool) -> CLIPPreprocessor:
    """As KerasHub names and fills the two of Stable Diffusion 3."""
    tokenizer = CLIPTokenizer(
        VOCABULARY, list(MERGES), pad_with_end_token=pad_with_end_token, config_file=f"{name}_tokenizer.json"
    )
    file = f"{name}_preprocessor.json"
    return CLIPPreprocessor(tokenizer, sequence_length=77, to_lower=False, config_file=file)


def remember(self: CLIPTokenizer, vocabulary: dict[str, int], merges: list[str]) -> None:
    """What KerasHub's tokenizer keeps only where TensorFlow is installed, though it needs it everywhere."""
    self.vocabulary, self.merges = dict(vocabulary), list(merges)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_the_same_picture(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BytePairTokenizer, "_set_vocabulary_and_merges_tf", remember)
    monkeypatch.setattr(test_keras_sd3, "LENGTH", 77)
    made = backbone(seed)
    preprocessor = StableDiffusion3TextToImagePreprocessor(tokens("clip_l", True), tokens("clip_g", False))
    theirs = StableDiffusion3TextToImage(made, preprocessor)
    theirs.save_to_preset(str(tmp_path / "preset"))
    ours = TextToImage.from_preset(tmp_path / "preset", dtype="float32")
    said = {"prompts": "a red cat", "negative_prompts": "fog dab"}
    h, w = made._latent_shape[:2]
    noise = torch.randn(1, made.latent_channels, h, w, generator=torch.Generator().manual_seed(7))
    monkeypatch.setattr(text_to_image.random, "normal", lambda shape, **_: noise.movedim(1, -1))
    right = np.asarray(theirs.generate(said, num_steps=4, guidance_scale=3.0)).astype(int)
    # KerasHub has as many zeros in T5's place as CLIP has words; diffusers, and so we, have 256.
    options: dict[str, Any] = {"size": right.shape[1::-1], "max_sequence_length": 77}
    found = ours.generate(said, num_steps=4, guidance_scale=3.0, seed=7, **options)
    assert right.std() > 20
    assert np.abs(np.asarray(found)[0].astype(int) - right).max() <= 1
