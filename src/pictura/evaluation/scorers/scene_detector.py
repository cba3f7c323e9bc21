"""How likely the trained detector holds it that a picture shows what a scene caption asks for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pictura.datasets.scenes.grammar import ANCHORS, COLOURS, PATCH, Wish, layout, parse
from pictura.evaluation.checkers.detector import as_input, trained
from pictura.picture import Picture


def score(pictures: Sequence[Picture]) -> list[float]:
    """Log-probability of the likeliest scene that each picture's own prompt allows, 0 at best.

    Raises `CaptionError` when a prompt is no scene caption: the detector knows nothing else.
    """
    wishes = [parse(picture.request.prompt) for picture in pictures]
    with torch.no_grad():
        answers = trained()(torch.cat([as_input(np.asarray(picture)[None]) for picture in pictures]))
    return [likelihood(wish, *answer) for wish, *answer in zip(wishes, *answers, strict=True)]


def likelihood(wish: Wish, centre: Tensor, thing: Tensor, colour: Tensor) -> float:
    """The same from the detector's answers: every grid point is empty or has its object, independently."""
    empty, full, which = logsigmoid(-centre), logsigmoid(centre), thing.log_softmax(0)
    there = (full - empty + which).tolist()  # what an object at a point adds to the sum of all empty points
    objects, best = wish.objects * wish.number, -math.inf
    for free in itertools.product(ANCHORS, ANCHORS):
        places = layout(wish.kind, wish.number, wish.relation, free)
        best = max(
            best,
            sum(float(there[o][y // PATCH][x // PATCH]) for o, (x, y) in zip(objects, places, strict=True)),
        )
    best += float(empty.sum())
    if wish.background is None:
        return best
    return best + float(colour.log_softmax(0)[list(COLOURS).index(wish.background)])
