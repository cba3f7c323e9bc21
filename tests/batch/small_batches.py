"""What the tests of batches share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pictura import Picture, Request


def toy_preset(folder: Path, width: int = 16) -> Path:
    """The toy family with random weights, as a preset folder."""
    import torch

    from pictura import TextToImage

    torch.manual_seed(3)
    model = TextToImage.from_preset("toy", load_weights=False, width=width)
    for parameter in model.backbone.parameters():
        torch.nn.init.normal_(parameter, 0, 0.1)
    model.save_to_preset(folder)
    return folder


def files(folder: Path) -> dict[str, str]:
    """Digest of every file below `folder`, hidden ones too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Instant:
    """A model that answers at once, without torch: the pixels are a function of prompt and seed."""

    name, digest = "instant", "0" * 64

    def __init__(self, on_picture: Callable[[Request], object] = lambda request: None, side: int = 8) -> None:
        self.drawn: list[int] = []
        self._on_picture, self._side = on_picture, side

    def stream(
        self, inputs: Iterator[Request], *, strict: bool, batch_size: int, history: bool
    ) -> Iterator[Any]:
        for index, request in enumerate(inputs):
            self._on_picture(request)
            self.drawn.append(request.seed or 0)
            rng = np.random.default_rng([request.seed or 0, len(request.prompt)])
            pixels = rng.integers(0, 255, (self._side, self._side, 3), np.uint8)
            yield Picture(
                image=Image.fromarray(pixels), request=request, model_digest=self.digest, index=index
            )
