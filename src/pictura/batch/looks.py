"""Which pictures are the same: to the pixel, or to the eye.

The perceptual hash is the sign pattern of the lowest frequencies of a discrete cosine transform (Zauner 2010,
"Implementation and benchmarking of perceptual image hash functions", section 3.2.1), 64 bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

__all__ = ["Neighbours", "Shelves", "content_hash", "perceptual_hash"]

WHOLE, SIGN = 2**64 - 1, 2**63  # SQLite's numbers have signs
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


class Shelves(Protocol):
    """Where `Neighbours` keeps hashes: on shelf (piece, bits) all hashes that have these bits there."""

    def shelve(self, shelves: Sequence[tuple[int, int]], number: int, looks: int) -> None:
        """Put a hash, with its number, on several shelves."""
        ...

    def shelf(self, piece: int, bits: int) -> Iterable[tuple[int, int]]:
        """(number, hash) of all that is on a shelf."""
        ...


class Neighbours:
    """Hashes with their numbers, in which one at most `distance` bits away is found quickly.

    Two hashes that differ in d bits agree in one of d + 1 pieces of theirs, so only those that share a piece
    are compared.
    """

    def __init__(self, distance: int, shelves: Shelves) -> None:
        self._distance, self._shelves = distance, shelves
        edges = [64 * at // (distance + 1) for at in range(distance + 2)]
        self._pieces = [(low, (1 << (high - low)) - 1) for low, high in zip(edges, edges[1:], strict=False)]

    def near(self, looks: int) -> int | None:
        """The smallest number whose hash is near `looks`."""
        numbers = [
            number
            for shelf in self._shelved(looks)
            for number, other in self._shelves.shelf(*shelf)
            if ((other ^ looks) & WHOLE).bit_count() <= self._distance
        ]
        return min(numbers, default=None)

    def add(self, looks: int, number: int) -> None:
        self._shelves.shelve(self._shelved(looks), number, looks)

    def _shelved(self, looks: int) -> list[tuple[int, int]]:
        bits = looks & WHOLE
        return [(piece, (bits >> low & mask) - SIGN) for piece, (low, mask) in enumerate(self._pieces)]
