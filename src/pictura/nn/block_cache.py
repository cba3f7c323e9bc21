"""Steps that leave most blocks of a transformer out (first-block cache; after TeaCache, Liu et al. 2024).

From one step to the next the blocks change their input in nearly the same way. The first block is always
computed; where its change is close to that of the step computed last in full, the change that all others made
then is added in their place.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["BlockCache"]


class BlockCache:
    """What one picture's steps share, for one prompt. tolerance: how far, relative to its mean size, the
    first block's change may be off; 0 computes everything."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.computed = self.left_out = 0  # steps
        self._first: Tensor | None = None
        self._rest: Tensor | None = None

    def rest(self, first: Tensor) -> Tensor | None:
        """What the other blocks would add after the first has added `first` (1, n, d); None to compute
        them."""
        if self._first is None or self._rest is None or self._first.shape != first.shape:
            return None
        off = (first - self._first).abs().mean()
        if not off < self.tolerance * self._first.abs().mean():
            return None
        self.left_out += 1
        return self._rest

    def keep(self, first: Tensor, rest: Tensor) -> None:
        """What the blocks added in a step computed in full."""
        self._first, self._rest = first, rest
        self.computed += 1
