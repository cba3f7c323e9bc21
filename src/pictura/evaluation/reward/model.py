"""The reward model: a score for a picture and its prompt, kept in a folder of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pictura import __version__
from pictura.errors import CheckpointError, shown
from pictura.evaluation.reward.features import LOOKS, WORDS, looks, words
from pictura.formats import safetensors, writing
from pictura.formats.preset import CONFIG, fresh
from pictura.formats.reading import read_json
from pictura.picture import Picture

__all__ = ["KIND", "Reward"]

Array = NDArray[np.float64]
KIND = "pictura-reward"
VERSION = 1  # of the features; a model that was learnt on others is refused


@dataclass(frozen=True, kw_only=True, eq=False)
class Reward:
    """score = w.x + (A x).(B q), with x what is seen of the picture, standardised, and q of the prompt.

    Scores are logits: of two pictures of one prompt, the share of people who like the first better is
    sigmoid(its score - the other's) (Bradley and Terry 1952). Differences between prompts mean nothing.
    mean, scale, linear (LOOKS,); left (r, LOOKS); right (r, WORDS). measured: what is known of its quality.
    """

    mean: Array
    scale: Array
    linear: Array
    left: Array
    right: Array
    measured: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, pictures: Sequence[Picture]) -> list[float]:
        """A score for each, of its own request's prompt; a scorer for `generate(best_of=..., scorer=...)`."""
        arrays = [np.asarray(picture, dtype=np.uint8) for picture in pictures]
        return self.score(arrays, [picture.request.prompt for picture in pictures])

    def score(self, pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[float]:
        """A score for each picture (h, w, 3) uint8 with its prompt."""
        return [float(score) for score in self.of(looks(pictures, prompts), words(prompts))]

    def of(self, seen: Array, said: Array) -> Array:
        """(n,) of features (n, LOOKS) and (n, WORDS)."""
        x = (seen - self.mean) / self.scale
        together: Array = ((x @ self.left.T) * (said @ self.right.T)).sum(1)
        return x @ self.linear + together

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a new folder, whole or not at all; FileError where something is in the way."""
        rank = len(self.left)
        config = {"kind": KIND, "version": VERSION, "rank": rank, "measured": dict(self.measured)}
        path = Path(folder)
        with fresh(path) as new:
            writing.write(new, {name: torch.from_numpy(value) for name, value in self._arrays().items()})
            (new / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
            (new / "README.md").write_text(_card(path.name, self), "utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Reward:
        """What `save` wrote; FileError, CheckpointError."""
        path = Path(folder)
        config = read_json(path / CONFIG)
        if config.get("kind") != KIND or config.get("version") != VERSION:
            raise CheckpointError(
                f"{str(path)!r} holds {shown(config.get('kind'))} of version {shown(config.get('version'))}; "
                f"give a folder that `pictura train --reward` of this version wrote"
            )
        rank, measured = config.get("rank"), config.get("measured")
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank <= 64:
            raise CheckpointError(f"{str(path / CONFIG)!r}: rank is {shown(rank)}; 0..64 belongs there")
        if not isinstance(measured, dict):
            raise CheckpointError(f"{str(path / CONFIG)!r}: measured is {shown(measured)}; give an object")
        shapes: dict[str, tuple[int, ...]] = {"mean": (LOOKS,), "scale": (LOOKS,), "linear": (LOOKS,)}
        shapes |= {"left": (rank, LOOKS), "right": (rank, WORDS)} if rank else {}
        tensors = {name: torch.empty(shape, dtype=torch.float64) for name, shape in shapes.items()}
        entries = safetensors.weights(path)
        safetensors.check(entries, tensors)
        safetensors.fill(entries, tensors, root=path)
        arrays = {"left": np.zeros((0, LOOKS)), "right": np.zeros((0, WORDS))}
        arrays |= {name: tensor.numpy() for name, tensor in tensors.items()}
        for name, value in arrays.items():
            if not np.isfinite(value).all() or (name == "scale" and not (value > 0).all()):
                raise CheckpointError(f"tensor {name!r} in {str(path)!r} has values that make no sense")
        return cls(**arrays, measured=measured)

    def _arrays(self) -> dict[str, Array]:
        arrays = {"mean": self.mean, "scale": self.scale, "linear": self.linear}
        return arrays | ({"left": self.left, "right": self.right} if len(self.left) else {})


def _card(name: str, model: Reward) -> str:
    told = "\n".join(f"- {key}: {value}" for key, value in model.measured.items()) or "Nothing."
    how = "by the words of the prompt" if len(model.left) else "alike for every prompt"
    return f"""---
library_name: pictura
tags: [pictura, reward-model]
---
# {name}

Scores pictures by what those people liked who made its choices, and nobody else. It weighs
{model.linear.size} numbers about a picture (a small detector's features, colours, sharpness, whether it shows
the scene its prompt asks for) {how}. The difference of two scores of one prompt is
the log-odds that the first is liked better. Written by Pictura {__version__}.

```python
import pictura

model = pictura.TextToImage.from_preset("scenes")
model.generate("a prompt", best_of=8, scorer="path/to/this/folder")
```

## Measured

{told}

Held-out pairs are of prompts that the model, and the choice of its settings, did not see.
"""
