"""The weights that are shipped: small, and they draw what they are asked for."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

import pictura
from pictura import families
from pictura.datasets.scenes.stream import example
from pictura.evaluation.composition import judge
from pictura.families.gan_cls.family import GanCls
from pictura.training import recipe

FOLDER = Path(families.__file__).parent / "gan_cls" / "weights"


@cache
def model() -> pictura.TextToImage:
    return pictura.TextToImage.from_preset("gan-cls")


def test_at_most_six_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 6_000_000
    assert (FOLDER / "README.md").read_text().startswith("---\n")


def test_scenes_never_seen_come_out_as_told() -> None:
    told = [example(i, split, basic=True).prompt for split in ("validation", "held-out") for i in range(20)]
    pictures = model().generate(told, seed=0, progress=False)
    verdicts = [judge(np.asarray(p), prompt) for p, prompt in zip(pictures, told, strict=True)]
    assert np.mean([v.exact for v in verdicts]) >= 0.9
    assert np.mean([v.identity for v in verdicts]) >= 0.95


def test_the_seed_chooses_the_background_that_the_caption_leaves_open() -> None:
    pictures = model().generate(["a cat"], num_images=12, seed=0, progress=False)
    seen = {judge(np.asarray(p), "a cat").sight.background for p in pictures}
    assert len(seen) >= 4


def test_the_discriminator_tells_right_from_wrong_captions() -> None:
    family = model().family
    assert isinstance(family, GanCls)
    found = [example(i, "validation", fixed_places=True) for i in range(64)]
    batch = family.prepare([{"images": e.image(), "prompts": e.prompt} for e in found])
    with torch.no_grad():
        right = family.evaluate("discriminator", (), images=batch["image"], ids=batch["ids"])
        wrong = family.evaluate("discriminator", (), images=batch["image"], ids=batch["ids"].roll(1, 0))
    assert (right > wrong).float().mean() >= 0.9


def test_the_recipe_builds_what_is_shipped() -> None:
    found = recipe.read(Path(__file__).parents[2] / "recipes" / "gan_cls.toml")
    family = families.load(found.family).from_config(found.architecture)
    assert isinstance(family, GanCls)
    assert family.config() == model().family.config()
    for stage in found.stages:
        family.begin_training(None, **stage.loss)
