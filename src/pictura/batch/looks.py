"""Which pictures are the same: to the pixel, or to the eye.

The perceptual hash is the sign pattern of the lowest frequencies of a discrete cosine transform (Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions", section 3.2.1), 64 bits.
"""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

__all__ = ["Neighbours", "content_hash", "perceptual_hash"]

_SIDE, _KEPT = 32, 8
_n = np.arange(_SIDE)
# Rows are the cosines of the DCT-II, unnormalised; the mean (row 0) is left out.
_COSINES = np.cos(np.pi / _SIDE * (_n[None] + 0.5) * np.arange(1, _KEPT + 1)[:, None])


def content_hash(image: Image.Image) -> bytes:
    """SHA-256 of the size and the RGB values, 32 bytes."""
    rgb = image.convert("RGB")
    return hashlib.sha256(b"%dx%d\n" % rgb.size + rgb.tobytes()).digest()


def perceptual_hash(image: Image.Image) -> int:
    """64 bits, of which few differ between pictures that look alike; a signed number, as SQLite has them."""
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    low = _COSINES @ np.asarray(grey, np.float64) @ _COSINES.T
    bits = np.packbits(low > np.median(low))
    return int.from_bytes(bits.tobytes(), "big", signed=True)


class Neighbours:
    """Hashes with their numbers, in which one at most `distance` bits away is found quickly.

    Two hashes that differ in d bits agree in one of d + 1 pieces of theirs, so only those that share a piece
    are compared.
    """

    def __init__(self, distance: int) -> None:
        self._distance = distance
        edges = [64 * at // (distance + 1) for at in range(distance + 2)]
        self._pieces = [(low, (1 << (high - low)) - 1) for low, high in zip(edges, edges[1:], strict=False)]
        self._found: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def near(self, looks: int) -> int | None:
        """The smallest number whose hash is near `looks`."""
        bits = looks & (2**64 - 1)
        numbers = [
            number
            for key in self._keys(bits)
            for other, number in self._found.get(key, ())
            if (other ^ bits).bit_count() <= self._distance
        ]
        return min(numbers, default=None)

    def add(self, looks: int, number: int) -> None:
        bits = looks & (2**64 - 1)
        for key in self._keys(bits):
            self._found.setdefault(key, []).append((bits, number))

    def _keys(self, bits: int) -> list[tuple[int, int]]:
        return [(at, bits >> low & mask) for at, (low, mask) in enumerate(self._pieces)]
