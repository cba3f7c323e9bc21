"""Features of pictures, for distances between sets of them.

They come from the scene detector's last layer before its answers (144 numbers), not from Inception: made for
64 px scenes of our vocabulary, comparable between models on scenes, and with no published figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .checkers.detector import as_input, trained

Array = NDArray[np.float64]


def features(pictures: Sequence[NDArray[np.uint8]], rows: int = 64) -> Array:
    """(n, 144) float64 of pictures (h, w, 3) uint8, `rows` at a time."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(pictures), rows):
            inputs = torch.cat([as_input(p[None]) for p in pictures[start : start + rows]])
            parts.append(trained().features(inputs).double().numpy())
    return np.concatenate(parts)
