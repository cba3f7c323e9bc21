r"""Prompts that stand for many: `{a|b}`, weights, several of a list, and wildcards from files.

    {red|blue}            one of them                 {2$$a|b|c}          two different ones, "a, c"
    {3::red|blue}         red three times as often    {1-2$$ and $$a|b}   one or two, with " and " between
    __animal__            a line of DIR/animal.txt    \{ \} \|            the character itself

Everything may be nested, lines of files too. A brace without its partner, or around something that is no
choice, is text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations as subsets
from itertools import islice

from pictura.errors import ParameterError
from pictura.request import MAX_PROMPT

__all__ = ["Lines", "all_of", "is_dynamic", "one_of"]

DEEPEST = 20  # levels of nesting, files in files among them
MOST = 10_000  # choices made for one prompt, or in one text
Lines = Callable[[str], Sequence[str]]  # a wildcard's name -> its lines

_MARKS = re.compile(r"\\[{}|]|[{}|]|__(?P<name>\w(?:(?!__)[\w\-/])*)__")
_COUNT = re.compile(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\$\$(?:([^|{}$]*)\$\$)?")
_WEIGHT = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)::")


@dataclass(frozen=True, slots=True)
class _Choice:
    """`low` to `high` of the options, `between` put between them."""

    options: tuple[_Option, ...]
    low: int = 1
    high: int = 1
    between: str = ", "


@dataclass(frozen=True, slots=True)
class _Option:
    """`text`, a line of a file, is parsed when it is chosen; else there are `parts`."""

    weight: float
    parts: tuple[_Part, ...] = ()
    text: str = ""

    def read(self) -> tuple[_Part, ...]:
        return _parsed(self.text) if self.text else self.parts


@dataclass(frozen=True, slots=True)
class _Wildcard:
    name: str


_Part = str | _Choice | _Wildcard


def is_dynamic(prompt: str) -> bool:
    """Whether `prompt` may hold anything of this; quick, and true of some that do not."""
    return "{" in prompt or "}" in prompt or "__" in prompt


def one_of(prompt: str, seed: int, lines: Lines) -> str:
    """The prompt that `seed` chooses: the same on every machine. ParameterError for what has no end or
    nothing to choose from."""
    budget = _Budget()
    dice = random.Random(seed)

    def resolve(parts: Sequence[_Part], depth: int) -> str:
        found = []
        for part in parts:
            if isinstance(part, str):
                found.append(part)
                continue
            choice = _opened(part, lines, depth)
            budget.spend(1)
            count = choice.low + _below(choice.high - choice.low + 1)
            picked = [resolve(option.read(), depth + 1) for option in _drawn(choice.options, count, dice)]
            found.append(choice.between.join(picked))
            budget.hold(len(found[-1]))
        return "".join(found)

    def _below(n: int) -> int:
        return 0 if n == 1 else int(dice.random() * n)

    return budget.checked(resolve(_parsed(prompt), 0))


def all_of(prompt: str, lines: Lines) -> Iterator[str]:
    """Every prompt that `prompt` can become, weights aside, in the order of their writing; made one by one.

    A ParameterError comes when its turn does."""

    def resolve(parts: Sequence[_Part], depth: int) -> Iterator[str]:
        if not parts:
            yield ""
            return
        first, *rest = parts
        for head in [first] if isinstance(first, str) else chosen(first, depth):
            for tail in resolve(rest, depth):
                yield head + tail

    def chosen(part: _Choice | _Wildcard, depth: int) -> Iterator[str]:
        choice = _opened(part, lines, depth)
        for count in range(choice.low, choice.high + 1):
            for options in subsets(choice.options, count):
                yield from joined([option.read() for option in options], choice.between, depth + 1)

    def joined(texts: Sequence[Sequence[_Part]], between: str, depth: int) -> Iterator[str]:
        if not texts:
            yield ""
            return
        for head in resolve(texts[0], depth):
            for tail in joined(texts[1:], between, depth):
                yield head + (between if len(texts) > 1 else "") + tail

    parts = _parsed(prompt)
    if len(parts) > 200:
        raise ParameterError(
            f"the prompt has {len(parts)} places to choose at; all of its prompts would never end",
            parameter="prompt",
        )
    return (_Budget().checked(text) for text in resolve(parts, 0))


class _Budget:
    """What keeps a few short files from becoming an endless text."""

    def __init__(self) -> None:
        self.choices = 0

    def spend(self, choices: int) -> None:
        self.choices += choices
        if self.choices > MOST:
            raise ParameterError(
                f"the prompt needs more than {MOST:,} choices; simplify it or its wildcards",
                parameter="prompt",
            )

    def hold(self, length: int) -> None:
        if length > MAX_PROMPT:
            raise ParameterError(
                f"the prompt becomes longer than {MAX_PROMPT:,} characters; simplify it or its wildcards",
                parameter="prompt",
            )

    def checked(self, text: str) -> str:
        self.hold(len(text))
        return text


def _opened(part: _Choice | _Wildcard, lines: Lines, depth: int) -> _Choice:
    """The choice that a part is, a wildcard's read from its file."""
    if depth >= DEEPEST:
        what = f"wildcard __{part.name}__" if isinstance(part, _Wildcard) else "a choice in the prompt"
        raise ParameterError(
            f"{what} lies more than {DEEPEST} levels deep; does a file name itself?", parameter="prompt"
        )
    if isinstance(part, _Choice):
        return part
    return _Choice(tuple(_option(line) for line in lines(part.name)))


def _drawn(options: tuple[_Option, ...], count: int, dice: random.Random) -> list[_Option]:
    """`count` different options, each draw by weight among those left."""
    left = list(options)
    drawn = []
    for _ in range(count):
        total = sum(option.weight for option in left)
        at = dice.random() * total
        for option in left:
            at -= option.weight
            if at < 0:
                break
        else:  # all weights 0, or a rounding at the very end
            option = left[-1]
        left.remove(option)
        drawn.append(option)
    return drawn


def _parsed(prompt: str) -> tuple[_Part, ...]:
    marks = list(islice(_MARKS.finditer(prompt), 4 * MOST))
    partners: dict[int, int] = {}
    waiting: list[int] = []
    for i, mark in enumerate(marks):
        if mark.group() == "{":
            waiting.append(i)
        elif mark.group() == "}" and waiting:
            partners[waiting.pop()] = i
    return _parts(prompt, marks, partners, 0, len(marks), 0, len(prompt), 0)


def _parts(
    text: str, marks: list[re.Match[str]], partners: dict[int, int], first: int, last: int, at: int, end: int,
    depth: int,
) -> tuple[_Part, ...]:  # fmt: skip
    """text[at:end], in which marks[first:last] lie, as parts."""
    if depth > DEEPEST:
        raise ParameterError(
            f"the prompt has choices more than {DEEPEST} levels deep; simplify it", parameter="prompt"
        )
    found: list[_Part] = []
    i = first
    while i < last:
        mark = marks[i]
        found.append(text[at : mark.start()])
        at = mark.end()
        if mark["name"]:
            found.append(_Wildcard(mark["name"]))
        elif i in partners:
            found += _group(text, marks, partners, i, depth)
            i = partners[i]
            at = marks[i].end()
        else:
            found.append(mark.group().removeprefix("\\"))
        i += 1
    found.append(text[at:end])
    return tuple(part for part in found if part != "")


def _group(
    text: str, marks: list[re.Match[str]], partners: dict[int, int], opener: int, depth: int
) -> tuple[_Part, ...]:
    """What stands between a brace and its partner: a choice, or text with the braces around it."""
    closer = partners[opener]
    begin, end = marks[opener].end(), marks[closer].start()
    counted = _COUNT.match(text, begin, end)
    cuts, i = [], opener + 1
    while i < closer:
        if marks[i].group() == "|":
            cuts.append(i)
        i = partners.get(i, i) + 1
    if not cuts and not counted:
        return ("{", *_parts(text, marks, partners, opener + 1, closer, begin, end, depth + 1), "}")
    options = []
    at, first = counted.end() if counted else begin, opener + 1
    for cut in [*cuts, closer]:
        stop = marks[cut].start()
        while first < cut and marks[first].start() < at:
            first += 1
        weight, at = _weight(text, at, stop)
        options.append(
            _Option(weight, _stripped(_parts(text, marks, partners, first, cut, at, stop, depth + 1)))
        )
        at, first = marks[cut].end(), cut + 1
    if not counted:
        return (_Choice(tuple(options)),)
    low = int(counted[1])
    high = int(counted[2] or low)
    if low > high or high > len(options):
        raise ParameterError(
            f"the prompt asks for {counted[0].strip()[:20]} of {len(options)} choices; "
            f"give 0..{len(options)}, the smaller first",
            parameter="prompt",
        )
    return (_Choice(tuple(options), low, high, ", " if counted[3] is None else counted[3]),)


def _weight(text: str, at: int, stop: int) -> tuple[float, int]:
    match = _WEIGHT.match(text, at, stop)
    return (float(match[1]), match.end()) if match else (1.0, at)


def _option(line: str) -> _Option:
    weight, at = _weight(line, 0, len(line))
    return _Option(weight, text=line[at:].strip())


def _stripped(parts: tuple[_Part, ...]) -> tuple[_Part, ...]:
    """Without the white space at both ends."""
    found = list(parts)
    if found and isinstance(found[0], str):
        found[0] = found[0].lstrip()
    if found and isinstance(found[-1], str):
        found[-1] = found[-1].rstrip()
    return tuple(part for part in found if part != "")
