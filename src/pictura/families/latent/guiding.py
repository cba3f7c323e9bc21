"""From many answers one: guidance, regions with prompts of their own, and tiles.

Everything here blends what networks say (noise, velocity, ...) at one x and one level, where the clean
picture is affine in it, so blending answers is blending pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, inf

import torch
import torch.nn.functional as F
from torch import Tensor

from pictura.engine import Answers, Ask, SubProgram
from pictura.levels import Level

__all__ = ["ALL", "MakeAsk", "Predict", "Region", "Window", "coloured", "guided", "regional", "tiled"]

Window = tuple[slice, slice, slice, slice]  # of (1, z, h, w)
ALL: Window = (slice(None),) * 4
MakeAsk = Callable[[Tensor, Level, Window], Ask]
Predict = Callable[[Tensor, Level, Window], SubProgram]  # what the network says to x[window]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """weight (1, 1, h, w): how much a prompt counts at each place of the latent."""

    weight: Tensor


def guided(
    yes: MakeAsk,
    no: MakeAsk | None,
    scale: float,
    phi: float = 0.0,
    interval: tuple[float, float] = (0.0, inf),
) -> Predict:
    """Classifier-free guidance (Ho and Salimans 2022, eq. 6), with `phi` of the unguided contrast kept
    (Lin et al. 2023, eq. 15-16); only where low < sigma / alpha <= high (Kynkäänniemi et al. 2024, eq. 5)."""
    low, high = interval

    def predict(x: Tensor, level: Level, window: Window) -> SubProgram:
        if no is None or not low < level.ratio <= high:
            (answer,) = yield (yes(x, level, window),)
            return answer
        away, towards = yield no(x, level, window), yes(x, level, window)
        answer = away + scale * (towards - away)
        if not phi:
            return answer
        dims = tuple(range(1, x.ndim))
        kept = answer * (towards.std(dims, keepdim=True) / answer.std(dims, keepdim=True))
        return phi * kept + (1 - phi) * answer

    return predict


def regional(predicts: Sequence[Predict], regions: Sequence[Region]) -> Predict:
    """The first prompt everywhere and one more in each region, averaged by their weights (Bar-Tal et al.
    2023, "MultiDiffusion", eq. 3)."""
    if not regions:
        return predicts[0]

    def predict(x: Tensor, level: Level, window: Window) -> SubProgram:
        answers = yield from together(*(one(x, level, window) for one in predicts))
        weights = [region.weight[window] for region in regions]
        total = sum(weights[1:], weights[0])
        mixed = sum((w * a for w, a in zip(weights[1:], answers[1:], strict=True)), weights[0] * answers[0])
        return mixed / total

    return predict


def tiled(predict: Predict, height: int, width: int, side: int, overlap: float = 0.25) -> Predict:
    """Ask about overlapping tiles of `side` and average, each counting less towards its edges, so that no
    seam shows (Bar-Tal et al. 2023)."""
    windows = [
        (slice(None), slice(None), rows, columns)
        for rows in _cuts(height, side, overlap)
        for columns in _cuts(width, side, overlap)
    ]
    if len(windows) == 1:
        return predict

    def tiles(x: Tensor, level: Level, window: Window) -> SubProgram:
        assert window == ALL
        answers = yield from together(*(predict(x, level, one) for one in windows))
        mixed, total = torch.zeros_like(x[:, : answers[0].shape[1]]), torch.zeros(1, 1, height, width)
        for one, answer in zip(windows, answers, strict=True):
            weight = _feather(answer.shape[2], answer.shape[3])
            mixed[one] += weight * answer
            total[one] += weight
        return mixed / total

    return tiles


def together(*programs: SubProgram) -> Generator[tuple[Ask, ...], Answers, list[Tensor]]:
    """Run sub-programs side by side, their questions in one tuple; what each returned, in order."""
    results: dict[int, Tensor] = {}
    live = {at: program for at, program in enumerate(programs)}
    answers: dict[int, Answers | None] = dict.fromkeys(live)
    try:
        while True:
            asked: dict[int, tuple[Ask, ...]] = {}
            for at, program in list(live.items()):
                reply = answers[at]
                try:
                    asked[at] = next(program) if reply is None else program.send(reply)
                except StopIteration as done:
                    results[at] = done.value
                    del live[at]
            if not asked:
                return [results[at] for at in range(len(programs))]
            replies = yield tuple(ask for asks in asked.values() for ask in asks)
            ends = accumulate(len(asks) for asks in asked.values())
            answers = {at: replies[end - len(asked[at]) : end] for at, end in zip(asked, ends, strict=True)}
    finally:
        for program in live.values():
            program.close()


def coloured(latent: Tensor, palette: Tensor) -> Tensor:
    """A rough picture (1, 3, h, w) of a latent (1, z, h, w): its channels as colours."""
    slopes, base = palette[0, :, :-1], palette[0, :, -1]
    return torch.einsum("kz,bzhw->bkhw", slopes, latent) + base[:, None, None]


def _cuts(length: int, side: int, overlap: float) -> list[slice]:
    """As few slices of `side` as cover `length` evenly with at least this share of overlap."""
    if length <= side:
        return [slice(0, length)]
    count = ceil((length - side) / (side * (1 - overlap))) + 1
    firsts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    return [slice(first, first + side) for first in firsts]


def _feather(height: int, width: int) -> Tensor:
    ramps = [torch.minimum(torch.arange(n) + 1, n - torch.arange(n)).float() for n in (height, width)]
    return F.relu(torch.outer(*ramps))[None, None]
