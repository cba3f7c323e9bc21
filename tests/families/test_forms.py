"""Every form of every model draws what diffusers draws: whole pictures of 8 steps, random weights in
another configuration for each form, guidance and a negative prompt. `--figures` writes down how far apart
they are."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_whole_pictures import close, drawn, guidance, theirs

from pictura import TextToImage, checkpoints
from pictura.converting import convert
from pipelines import KINDS, pipeline

Record = Callable[[str, str, float], None]
FORMS = ("diffusers", "single file", "Pictura preset")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], tuple[Path, Any]]:
    """A random pipeline in the folder that diffusers wrote, and the picture that diffusers draws with it."""

    @cache
    def make(kind: str, seed: int) -> tuple[Path, torch.Tensor]:
        pipe = pipeline(kind, seed)
        pipe.set_progress_bar_config(disable=True)
        folder = tmp_path_factory.mktemp("parity") / kind
        pipe.save_pretrained(folder)
        return folder, theirs(pipe, **guidance(kind)[1])

    return make


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_form_draws_what_diffusers_draws(
    kind: str, form: str, made: Callable[[str, int], Any], tmp_path: Path, record: Record
) -> None:
    folder, other = made(kind, FORMS.index(form))
    place, config = folder, None
    if form == "single file":
        place, config = convert(folder, tmp_path / "single", "single-file"), folder
    elif form == "Pictura preset":
        place = convert(folder, tmp_path / "preset")
    plan = checkpoints.find(folder).recipe.plan
    assert plan is not None
    model = TextToImage.from_preset(place, config=config, dtype="float32")
    mine = drawn(model.family, seed=7, num_steps=8, size=(48, 32), **guidance(kind)[0])
    close(mine, other)
    record(plan.version, form, float((mine - other).abs().max() / other.abs().max()))
