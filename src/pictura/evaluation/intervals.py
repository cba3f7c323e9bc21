"""How sure a measured share is."""

from __future__ import annotations

import math

Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


def wilson(right: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Confidence interval of a share, 95 % by default (Wilson 1927); (0, 1) where nothing was counted."""
    if total == 0:
        return 0.0, 1.0
    share, n = right / total, total
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
