"""Frechet distance (Heusel et al. 2017) between two sets of pictures, over our detector's features.

Not comparable with published FID, which uses Inception's: see `pictura.evaluation.features`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import Metric, Sample

Array = NDArray[np.float64]


def frechet_distance(one: Array, other: Array) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the Gaussians fitted to features (n, d) and (m, d)."""
    s1, s2 = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(s1)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    # (S1 S2)^(1/2) has the trace of (S1^(1/2) S2 S1^(1/2))^(1/2), which is symmetric
    crossed = np.sqrt(np.linalg.eigvalsh(root @ s2 @ root).clip(0)).sum()
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * crossed)


def measure(sample: Sample) -> float:
    from pictura.evaluation.features import features

    return frechet_distance(features(sample.pictures), features(sample.reference))


METRIC = Metric(
    help="Frechet distance to real scenes over the scene detector's features (not Inception's)",
    higher_is_better=False,
    measure=measure,
    least=200,  # fewer pictures than features give a covariance without full rank
)
