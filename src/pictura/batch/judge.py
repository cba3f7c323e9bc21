"""Looking at finished pictures: scores, filters, and which of several candidates is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pictura.batch.filters import Filter, filter_named
from pictura.errors import EngineError, ParameterError, shown
from pictura.evaluation.scorers import Scorer, scorer_named
from pictura.picture import Picture

__all__ = ["Judge", "Verdict", "name_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """scores by the scorers' names. refused: why the picture may not be kept."""

    scores: Mapping[str, float] = field(default_factory=dict)
    refused: str | None = None


class Judge:
    """Scorers and filters, each a function or the name of one; the first scorer chooses among candidates.

    ParameterError for a name that is unknown, or that two have.
    """

    def __init__(
        self,
        scorers: Sequence[Scorer | str] = (),
        filters: Sequence[Filter | str] = (),
        min_score: float | None = None,
    ) -> None:
        self.scorers: dict[str, Scorer] = _named("scorer", scorers, scorer_named)
        self.filters: dict[str, Filter] = _named("filter", filters, filter_named)
        self._least = min_score
        if min_score is not None and not scorers:
            raise ParameterError("min_score needs a scorer; name one", parameter="min_score")

    def look(self, pictures: Sequence[Picture]) -> list[Verdict]:
        """A verdict on each; what a filter refuses is not scored. EngineError where one of them fails."""
        refused: list[str | None] = [None] * len(pictures)
        for name, refuse in self.filters.items():
            for at, reason in enumerate(_asked("filter", name, refuse, pictures)):
                if reason and refused[at] is None:
                    refused[at] = f"{name}: {reason}"
        free = [at for at, reason in enumerate(refused) if reason is None]
        scores: list[dict[str, float]] = [{} for _ in pictures]
        for name, score in self.scorers.items():
            if free:
                found = _asked("scorer", name, score, [pictures[at] for at in free])
                for at, value in zip(free, found, strict=True):
                    scores[at][name] = _number(name, value)
        if self._least is not None:
            for at in free:
                value = self._first(scores[at])
                if value < self._least:
                    refused[at] = f"score {value:.4g} is below {self._least:g}"
        return [Verdict(scores=s, refused=r) for s, r in zip(scores, refused, strict=True)]

    def best(self, verdicts: Sequence[Verdict]) -> int | None:
        """Which candidate to keep: the best that is not refused, the first of equals; None where all are."""
        free = [at for at, verdict in enumerate(verdicts) if verdict.refused is None]
        if not free or not self.scorers:
            return free[0] if free else None
        return max(free, key=lambda at: (self._first(verdicts[at].scores), -at))

    def _first(self, scores: Mapping[str, float]) -> float:
        return scores[next(iter(self.scorers))]


def name_of(what: object) -> str:
    """How a plan records a scorer or a filter: its name, or where a function was defined."""
    if isinstance(what, str):
        return what
    if not callable(what):
        raise ParameterError(f"{shown(what)} is no function and no name of one", parameter="scorer")
    where = getattr(what, "__module__", type(what).__module__)
    return f"{where}.{getattr(what, '__qualname__', type(what).__qualname__)}"


def _named(kind: str, given: Sequence[Any], find: Callable[[str], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in given:
        name = name_of(one)
        if name in found:
            message = f"two {kind}s are called {shown(name)}; give each its own name"
            raise ParameterError(message, parameter=f"{kind}s")
        found[name] = find(one) if isinstance(one, str) else one
    return found


def _number(name: str, value: Any) -> float:
    """A score; what is no finite number would compare with nothing, and JSON has no word for it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise EngineError(f"scorer {name!r} gave {shown(value)}, which is no finite number; try another")
    return number


def _asked(kind: str, name: str, judge: Callable[..., Any], pictures: Sequence[Picture]) -> list[Any]:
    try:
        answers = list(judge(pictures))
    except Exception as error:
        raise EngineError(f"{kind} {name!r} failed ({type(error).__name__}: {error}); try another") from error
    if len(answers) != len(pictures):
        raise EngineError(f"{kind} {name!r} gave {len(answers)} answers for {len(pictures)} pictures")
    return answers
