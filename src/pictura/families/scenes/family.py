"""`scenes`: Pictura's own small flow model, a caption to a 128 px picture."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...datasets.scenes.grammar import Scene, things
from ...datasets.scenes.render import NONE, WHOLE, labels
from .model import Denoiser, Labels, TextEncoder
from .words import LENGTH, ROWS, word_list

ARCHITECTURE: dict[str, Any] = {
    "side": 128, "patch": 16, "coefficients": 512, "width": 256, "heads": 4, "hidden": 704,
    "depth": 8, "text_depth": 3, "pooled": True, "taught": [],
}  # fmt: skip
PLACES = {"centre": 1, "left": 2, "right": 3, "above": 4, "below": 5, "two": 6, "three": 7, "four": 8}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


class Scenes:
    """See the contract in `families`. Trained by `recipes/scenes.toml`."""

    name: ClassVar[str] = "scenes"

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        self.architecture = a = {**ARCHITECTURE, **architecture}
        self.words = word_list(a["taught"])
        common = {"width": a["width"], "heads": a["heads"], "hidden": a["hidden"]}
        self.text = TextEncoder(ROWS, LENGTH, depth=a["text_depth"], **common)
        self.denoiser = Denoiser(
            a["side"], a["patch"], a["coefficients"], depth=a["depth"], pooled=a["pooled"], **common
        )
        self.labels: Labels | None = None
        self.recipe: dict[str, Any] = {
            "times": [[0.75, -1.8, 1.2], [0.25, 0.5, 1.0]],
            "drop_caption": 0.1,
            "label_weight": 0.2,
            "dtype": "float32",
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Scenes:
        return cls(config)

    # Training

    def begin_training(self, sample: Mapping[str, Tensor] | None, **recipe: Any) -> dict[str, nn.Module]:
        """Networks to train. `sample`, a prepared batch of some hundred pictures, sets the PCA; None keeps
        it (fine-tuning)."""
        self.recipe.update(recipe)
        if self.labels is None:
            self.labels = Labels(self.architecture["width"], NONE + 1, WHOLE + 1, len(PLACES) + 1)
        if sample is not None:
            patches = self.denoiser.encode(sample["image"]).flatten(0, 1)
            mean = patches.mean(0)
            _, singular, basis = torch.linalg.svd(patches - mean, full_matrices=False)
            k = self.architecture["coefficients"]
            self.denoiser.mean.copy_(mean)
            self.denoiser.basis.copy_(basis[:k].T)
            self.denoiser.variance.copy_((singular[:k] ** 2 / len(patches)).clamp_min(1e-5))
        return {**self.networks(), "labels": self.labels}

    def networks(self) -> dict[str, nn.Module]:
        return {"text": self.text, "denoiser": self.denoiser}

    def prepare(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """{"images", "prompts"[, "scene"]} each -> image (b, 3, 128, 128), tokens (b, 8) and, if every example
        has its `Scene`, object and piece (b, 64) and place (b, 8; -1 = no target)."""
        pictures = np.stack([np.asarray(e["images"]) for e in examples])
        image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens = [self.words.encode(e["prompts"]) for e in examples]
        batch = {"image": image, "tokens": torch.tensor([self.words.padded(t) for t in tokens])}
        scenes = [e.get("scene") for e in examples]
        if all(isinstance(scene, Scene) for scene in scenes):
            maps = [labels(scene) for scene in scenes]  # type: ignore[arg-type]
            batch["object"] = torch.from_numpy(np.stack([m[0] for m in maps]))
            batch["piece"] = torch.from_numpy(np.stack([m[1] for m in maps]))
            places = torch.zeros(len(examples), LENGTH, dtype=torch.int64)
            for row, scene, token in zip(places, scenes, tokens, strict=True):
                where = _places(scene)  # type: ignore[arg-type]
                for i, noun in enumerate(token.nouns):
                    row[i] = where[noun] if 0 <= noun < len(where) else 0
            batch["place"] = places.masked_fill(batch["tokens"] == 0, -1)
        return batch

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        """Velocity loss of flow matching with a prediction of the clean picture (Li and He 2025), in PCA
        coefficients, plus label losses where the batch has labels."""
        recipe, net = self.recipe, self.denoiser
        b = len(batch["image"])
        dtype = getattr(torch, recipe["dtype"])
        x = (net.encode(batch["image"]) - net.mean) @ net.basis
        shares = torch.tensor([share for share, _, _ in recipe["times"]])
        which = torch.multinomial(shares, b, replacement=True, generator=rng)
        centre = torch.tensor([[m, s] for _, m, s in recipe["times"]])[which]
        t = torch.sigmoid(centre[:, 0] + centre[:, 1] * torch.randn(b, generator=rng))
        noise = torch.randn(x.shape, generator=rng)
        dropped = torch.rand(b, generator=rng) < recipe["drop_caption"]
        null = torch.tensor(self.words.padded(self.words.encode("")))
        tokens = torch.where(dropped[:, None], null, batch["tokens"])

        text = self.text(tokens, dtype)
        z = t[:, None, None] * x + (1 - t[:, None, None]) * noise
        clean, middle = net(z, t, text, tokens != 0, dtype)
        weight = 1 / (1 - t).clamp_min(0.05) ** 2
        flow = ((clean - x).square().sum((1, 2)) * weight).mean() / batch["image"][0].numel()
        losses = {"flow": flow}
        if "object" in batch and self.labels is not None:
            obj, piece, place = self.labels(middle, text)
            losses["object"] = F.cross_entropy(obj.flatten(0, 1), batch["object"].flatten())
            losses["piece"] = F.cross_entropy(piece.flatten(0, 1), batch["piece"].flatten())
            target = batch["place"].masked_fill(dropped[:, None], -1)
            losses["place"] = F.cross_entropy(place.flatten(0, 1), target.flatten(), ignore_index=-1)
        labelled = sum((loss for name, loss in losses.items() if name != "flow"), flow.new_zeros(()))
        self.logs = {name: loss.detach() for name, loss in losses.items()}
        return {"text+denoiser+labels": flow + recipe["label_weight"] * labelled}


def _places(scene: Scene) -> tuple[int, ...]:
    """Place class of each name in the caption."""
    if scene.kind == "single":
        return (PLACES["centre"],)
    if scene.kind == "count":
        return (PLACES[{2: "two", 3: "three", 4: "four"}[scene.number]],)
    return PLACES[scene.relation], PLACES[OPPOSITE[scene.relation]]


FAMILY = Scenes
