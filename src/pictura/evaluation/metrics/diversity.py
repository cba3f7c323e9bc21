"""Diversity: how many really different pictures there are among the generated ones, against real ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import Metric, Sample

Array = NDArray[np.float64]


def vendi_score(features: Array) -> float:
    """Effective number of different rows (Friedman and Dieng 2023, eq. 2, cosine kernel): 1 when all rows
    are alike, n when all n are orthogonal."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    values = np.linalg.eigvalsh(unit @ unit.T / len(unit)).clip(1e-300)
    return float(np.exp(-(values * np.log(values)).sum()))


def measure(sample: Sample) -> float:
    from pictura.evaluation.features import features

    return vendi_score(features(sample.pictures)) / vendi_score(features(sample.reference))


METRIC = Metric(
    help="Vendi score over the scene detector's features, as a share of that of as many real scenes",
    higher_is_better=True,
    measure=measure,
)
