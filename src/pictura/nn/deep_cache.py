"""Steps that compute only the outermost layers of a UNet (DeepCache, Ma et al. 2023).

From one step to the next the deep maps of a UNet change little, while they cost the most. Every so many steps
all is computed, and the map that the last layer of the way up reads from below is kept; in between only that
layer and the first and last convolutions are computed, around the kept map.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["DeepCache"]


class DeepCache:
    """What one picture's steps share, for one prompt. every: one step in so many is computed in full."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.computed = self.left_out = 0  # steps
        self._deep: Tensor | None = None

    def deep(self, like: Tensor) -> Tensor | None:
        """The kept map for a step whose outermost map is `like` (b, c, h, w); None to compute all."""
        due = (self.computed + self.left_out) % self.every == 0
        kept = self._deep
        if due or kept is None or kept.shape[2:] != like.shape[2:] or len(kept) != len(like):
            return None
        self.left_out += 1
        return kept

    def keep(self, deep: Tensor) -> None:
        """The map of a step computed in full."""
        self._deep = deep
        self.computed += 1
