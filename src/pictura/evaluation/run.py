"""Evaluate a model: draw a suite's prompts with the defaults a user gets, and let every checker judge."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pictura import __version__
from pictura.errors import ParameterError, shown
from pictura.picture import Picture

from . import checkers, metrics
from .composition import Verdict, judge
from .intervals import wilson
from .metrics import Sample
from .report import Judged, Report, Share, reserve, write
from .reward import Reward
from .suites import Case, suite_named

__all__ = ["Draws", "evaluate"]

BATCH = 16


class Draws(Protocol):
    """What is evaluated: a `TextToImage`, or anything else with its `generate`."""

    def generate(self, inputs: Any, /, *, seed: int | None = ..., **settings: Any) -> Iterable[Picture]:
        """Pictures in the order of the prompts, with the seeds `seed`, `seed` + 1, ..."""
        ...


def evaluate(
    model: Draws,
    suite: str = "scenes",
    *,
    count: int = 100,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    name: str = "",
    settings: Mapping[str, Any] | None = None,
    measure: Sequence[str] | None = None,
    clip: str | None = None,
    reward: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Report:
    """Draw `count` pictures of each category of `suite` and report how many are right, by every checker.

    The prompts are the same for all models; picture i has the seed `seed` + i (times `best_of`, if given).
    `settings` go to `generate`; without any, it is the model's defaults that are graded. `measure` names
    metrics (default: all that can be measured); `clip` is a folder of a CLIP model, `reward` of a reward
    model. `progress(done, total)` is called after every batch. With `out`, a new folder, the report is
    written as `report.md`, `.html`, `.json` with pictures.

    Raises `ParameterError` for a bad `suite`, `count`, `seed` or `measure`, `FileError` if `out` is in the
    way, all before anything is drawn.
    """
    cases = suite_named(suite)(_within("count", count, 1, 100_000))
    _within("seed", seed, 0, 2**62)
    wanted = [(n, metrics.metric_named(n)) for n in (metrics.names() if measure is None else measure)]
    given = {"clip": clip, "reward": reward}
    needed = {setting: os.fspath(folder) for setting, folder in given.items() if folder}
    for metric, known in wanted:
        if measure is not None and not set(known.needs) <= needed.keys():
            lacking = ", ".join(sorted(set(known.needs) - needed.keys()))
            raise ParameterError(
                f"metric {metric!r} cannot be measured without {lacking}; give it", parameter="measure"
            )
    if reward is not None:
        Reward.load(reward)
    if out is not None:
        reserve(out)
    settings = dict(settings or {})
    began = time.perf_counter()
    judged = []
    for one in _judged(model, cases, seed, settings):
        judged.append(one)
        if progress is not None:
            progress(len(judged), len(cases))
    sample = Sample(
        pictures=[j.image for j in judged],
        prompts=[c.prompt for c in cases],
        reference=[c.real for c in cases],
        settings=needed,
    )
    can = [(n, m) for n, m in wanted if set(m.needs) <= needed.keys() and len(cases) >= m.least]
    first = judged[0].picture
    report = Report(
        model=name or first.request.model or type(model).__name__,
        digest=first.model_digest,
        suite=suite,
        count=count,
        seed=seed,
        settings=settings,
        request={k: v for k, v in first.request.to_dict().items() if k not in ("prompt", "seed")},
        shares=_shares(judged),
        metrics={n: (m.measure(sample), m.help, m.higher_is_better) for n, m in can},
        seconds=sum(j.seconds for j in judged) / len(judged),
        total_seconds=time.perf_counter() - began,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        judged=tuple(judged),
    )
    if out is not None:
        write(report, out)
    return report


def _judged(model: Draws, cases: list[Case], seed: int, settings: Mapping[str, Any]) -> Iterator[Judged]:
    """Every case drawn and judged, a batch at a time; seconds are wall time of the batch, shared out."""
    stride = int(settings.get("best_of") or 1)
    # Hundreds of pictures that nobody will look for; a report keeps those that matter.
    settings = {**settings, "history": False} if hasattr(model, "history") else settings
    for start in range(0, len(cases), BATCH):
        batch = cases[start : start + BATCH]
        began = time.perf_counter()
        drawn = list(model.generate([c.prompt for c in batch], seed=seed + start * stride, **settings))
        seconds = (time.perf_counter() - began) / len(batch)
        for case, picture in zip(batch, drawn, strict=True):
            image = np.asarray(picture, dtype=np.uint8)
            yield Judged(case.category, case.prompt, picture, image, _verdicts(image, case.prompt), seconds)


def _verdicts(image: NDArray[np.uint8], prompt: str) -> dict[str, Verdict]:
    return {name: judge(image, prompt, checker=name) for name in checkers.names()}


def _shares(judged: Sequence[Judged]) -> tuple[Share, ...]:
    """Right of total by category and checker: the whole scene for a category, the colour for backgrounds."""
    shares = []
    for checker in checkers.names():
        counted: dict[str, list[bool]] = {}
        for one in judged:
            verdict = one.verdicts[checker]
            counted.setdefault(one.category, []).append(verdict.exact)
            if verdict.background is not None:
                counted.setdefault("background", []).append(verdict.background)
        for category in sorted(counted, key=lambda c: (c == "background", list(counted).index(c))):
            right, total = sum(counted[category]), len(counted[category])
            shares.append(Share(category, checker, right, total, *wilson(right, total)))
    return tuple(shares)


def _within(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ParameterError(
            f"{name} is {shown(value)}; it must be a whole number from {least} to {most}", parameter=name
        )
    return value
