"""Which condition holds at which step: prompts may change while a picture is drawn (see `text.schedule`)."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from torch import Tensor

from pictura.engine import Answers, Ask
from pictura.levels import Level
from pictura.request import Request
from pictura.text.schedule import scheduled

__all__ = ["Condition", "Timed", "conditions", "step_of", "texts"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Condition:
    """context (1, n, d), pooled (1, k) where the network reads it. negative: it is what to move away from."""

    context: Tensor
    pooled: Tensor | None = None
    negative: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timed:
    """Each condition holds up to and with its step, the first being 1; the last one to the end."""

    parts: tuple[tuple[int, Condition], ...]

    def at(self, step: int) -> Condition:
        return next((part for end, part in self.parts if step <= end), self.parts[-1][1])


class Reads(Protocol):
    """What is needed of a family."""

    def scale_of(self, request: Request) -> float: ...
    def read(
        self, request: Request, prompt: str | None, *, negative: bool = False
    ) -> Generator[tuple[Ask, ...], Answers, Condition]: ...


def conditions(
    family: Reads, request: Request
) -> Generator[tuple[Ask, ...], Answers, tuple[list[Timed], Timed | None]]:
    """The prompt's and each region's, and the negative prompt's where there is guidance."""

    def read(prompt: str, negative: bool) -> Generator[tuple[Ask, ...], Answers, Timed]:
        parts = []
        for end, text in _steps(request, prompt):
            parts.append((end, (yield from family.read(request, text, negative=negative))))
        return Timed(parts=tuple(parts))

    yes = []
    for prompt in _prompts(request):
        yes.append((yield from read(prompt, False)))
    if family.scale_of(request) <= 1.0:
        return yes, None
    if request.negative_prompt is None:
        nothing = yield from family.read(request, None, negative=True)
        return yes, Timed(parts=((1, nothing),))
    return yes, (yield from read(request.negative_prompt, True))


def texts(request: Request, *, guided: bool) -> list[str]:
    """All that is read for a request, at any step."""
    prompts = [*_prompts(request), *([request.negative_prompt or ""] if guided else [])]
    return [text for prompt in prompts for _, text in _steps(request, prompt)]


def step_of(level: Level, levels: Sequence[Level]) -> int:
    """The step, from 1, in which `level` is asked about, of a plan that visits `levels`."""
    noise = _noise(level)
    return 1 + sum(_noise(other) > noise for other in levels[:-1])


def _prompts(request: Request) -> list[str]:
    return [request.prompt, *(region["prompt"] for region in request.options.get("regions") or ())]


def _steps(request: Request, prompt: str) -> tuple[tuple[int, str], ...]:
    steps = request.num_steps or 1
    if request.options.get("prompt_syntax") == "plain":
        return ((steps, prompt),)
    return _scheduled(prompt, steps)


@lru_cache(maxsize=256)
def _scheduled(prompt: str, steps: int) -> tuple[tuple[int, str], ...]:
    return scheduled(prompt, steps)


def _noise(level: Level) -> float:
    """Noise to signal, which falls from step to step."""
    return level.sigma / level.alpha if level.alpha else float("inf")
