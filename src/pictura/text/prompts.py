r"""Prompts in the syntax of AUTOMATIC1111's web interface: how much each part counts, and where chunks end.

    (word)      counts 1.1 times as much          \( \) \[ \] \\    the character itself
    (word:1.3)  counts 1.3 times as much          BREAK             what follows begins a new chunk
    [word]      counts 1 / 1.1 times as much

Brackets may be nested; their factors multiply. A bracket without its partner is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pictura.errors import ParameterError, shown

__all__ = ["SYNTAXES", "Piece", "parse"]

SYNTAXES = ("a1111", "plain")
MOST = 100.0  # a weight is -100 to 100
STEP = 1.1
_TOKEN = re.compile(
    r"\\([()\[\]\\])"  # 1: an escaped character
    r"|:\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*\)"  # 2: a weight and the bracket
    r"|([()\[\]])"  # 3: a bracket
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_OPENS = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that counts `weight` times as much as usual."""

    text: str
    weight: float = 1.0


def parse(prompt: str, syntax: str = "a1111") -> tuple[tuple[Piece, ...], ...]:
    """The prompt's pieces, in sections that BREAK parts; "plain" takes every character as it is.

    Together the texts of a section are what its words are read from: no space is lost between two pieces.
    ParameterError for a weight beyond -100..100.
    """
    if syntax == "plain":
        return ((Piece(prompt),),)
    sections: list[list[Piece]] = [[]]
    for piece in _weighted(prompt):
        first, *others = _BREAK.split(piece.text)
        sections[-1].append(Piece(first, piece.weight))
        sections += [[Piece(text, piece.weight)] for text in others]
    merged = [_merged(section) for section in sections]
    return tuple(merged[:-1] if len(merged) > 1 and not merged[-1] else merged)


def _weighted(prompt: str) -> Iterable[Piece]:
    """Two passes, so that deep nesting takes no longer than the text is long: which brackets are partners and
    by which factor; then the product of the factors around each text."""
    texts: list[str] = []  # at even places text, at odd places a bracket as it was written
    factors: dict[int, float | None] = {}  # by place of a bracket that has a partner; None closes
    open_at: list[tuple[str, int]] = []
    waiting = {"(": 0, "[": 0}  # how many of each are in `open_at`, so that no search is in vain
    at, run = 0, ""
    for match in _TOKEN.finditer(prompt):
        escaped, weight, bracket = match.groups()
        run += prompt[at : match.start()]
        at = match.end()
        if escaped:
            run += escaped
            continue
        texts += [run, match.group()]
        run, here = "", len(texts) - 1
        if bracket in ("(", "["):
            open_at.append((bracket, here))
            waiting[bracket] += 1
            continue
        wanted = _OPENS[bracket or ")"]
        if waiting[wanted]:
            kind, opener = "", -1
            while kind != wanted:  # brackets that were opened inside and not closed are text
                kind, opener = open_at.pop()
                waiting[kind] -= 1
            factors[opener] = _number(weight) if weight else STEP if wanted == "(" else 1 / STEP
            factors[here] = None
    texts.append(run + prompt[at:])
    outer: list[float] = []
    weight_now = 1.0
    for place, text in enumerate(texts):
        if place not in factors:
            yield Piece(text, _checked(weight_now, text))
        elif (factor := factors[place]) is None:
            weight_now = outer.pop()
        else:
            outer.append(weight_now)
            weight_now *= factor


def _merged(section: list[Piece]) -> tuple[Piece, ...]:
    found: list[Piece] = []
    for piece in section:
        if found and found[-1].weight == piece.weight:
            found[-1] = Piece(found[-1].text + piece.text, piece.weight)
        elif piece.text:
            found.append(piece)
    return tuple(found)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or abs(value) > MOST:
        raise _too_much(text)
    return value


def _checked(weight: float, text: str) -> float:
    if text and not abs(weight) <= MOST:
        raise _too_much(f"{weight:.4g}", f" of {shown(text.strip(), 30)}")
    return weight


def _too_much(weight: str, what: str = "") -> ParameterError:
    return ParameterError(
        f"a weight{what} in the prompt is {shown(weight)}; give -{MOST:g}..{MOST:g}, "
        "or prompt_syntax 'plain' to have none",
        parameter="prompt",
    )
