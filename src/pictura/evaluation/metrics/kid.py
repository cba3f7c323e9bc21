"""Kernel distance (Binkowski et al. 2018) between two sets of pictures, over our detector's features.

Unbiased at any number of pictures, unlike `fid`; not comparable with published KID, which uses Inception's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import Metric, Sample

Array = NDArray[np.float64]


def kernel_distance(one: Array, other: Array) -> float:
    """Unbiased squared maximum mean discrepancy of features (n, d) and (m, d), kernel (x.y / d + 1)^3."""
    within = [_mean_of_pairs(x) for x in (one, other)]
    return sum(within) - 2 * float(_kernel(one, other).mean())


def _kernel(x: Array, y: Array) -> Array:
    k: Array = (x @ y.T / x.shape[1] + 1) ** 3
    return k


def _mean_of_pairs(x: Array) -> float:
    k = _kernel(x, x)
    return float((k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)))


def measure(sample: Sample) -> float:
    from pictura.evaluation.features import features

    return kernel_distance(features(sample.pictures), features(sample.reference))


METRIC = Metric(
    help="kernel distance to real scenes over the scene detector's features (not Inception's)",
    higher_is_better=False,
    measure=measure,
)
