"""How long pictures took from the acceptance of their job, as a worker tells it: counts below bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["BOUNDS", "Lags"]

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 3600.0)  # seconds


@dataclass
class Lags:
    """counts: how many took at most so long, for each bound, and all of them at the end."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        """One more; clocks that were set back count as no time."""
        seconds = max(0.0, seconds)
        self.sum += seconds
        for at, bound in enumerate((*BOUNDS, float("inf"))):
            self.counts[at] += seconds <= bound

    def stats(self) -> dict[str, Any]:
        """As JSON values."""
        return {"counts": list(self.counts), "sum": round(self.sum, 3)}
