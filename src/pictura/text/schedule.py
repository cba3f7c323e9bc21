"""Prompts that change while a picture is drawn, in the syntax of AUTOMATIC1111's web interface.

    [cat:dog:0.3]   cat for the first 30 % of the steps, then dog; [cat:dog:6] cat for six steps
    [dog:0.3]       nothing, then dog            [cat::0.3]      cat, then nothing
    [cat|dog]       cat and dog, step by step in turn

Brackets that are none of these, such as [word], are left for `prompts`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pictura.errors import ParameterError

__all__ = ["scheduled"]

DEEPEST = 20
_MARK = re.compile(r"\\.|[()\[\]:|]", re.DOTALL)
_WHEN = re.compile(r"\s*([0-9]{1,4}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})\s*")


@dataclass(frozen=True, slots=True)
class _Edit:
    before: tuple[_Part, ...]
    after: tuple[_Part, ...]
    last: int  # the step up to which it is `before`


@dataclass(frozen=True, slots=True)
class _Turns:
    options: tuple[tuple[_Part, ...], ...]


_Part = str | _Edit | _Turns


def scheduled(prompt: str, steps: int) -> tuple[tuple[int, str], ...]:
    """(last step, prompt) in order, steps counted from 1 to `steps`; one pair where nothing changes.

    ParameterError for brackets in brackets without end."""
    if "[" not in prompt:
        return ((steps, prompt),)
    marks = [mark for mark in _MARK.finditer(prompt) if mark.group()[0] != "\\"]
    parts = _parts(prompt, marks, _partners(marks), 0, len(marks), 0, len(prompt), steps, 0)
    found: list[tuple[int, str]] = []
    for end in sorted({steps, *_ends(parts, steps)}):
        text = _at(parts, end)
        if found and found[-1][1] == text:
            found.pop()
        found.append((end, text))
    return tuple(found)


def _at(parts: Sequence[_Part], step: int) -> str:
    found = []
    for part in parts:
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, _Edit):
            found.append(_at(part.before if step <= part.last else part.after, step))
        else:
            found.append(_at(part.options[(step - 1) % len(part.options)], step))
    return "".join(found)


def _ends(parts: Sequence[_Part], steps: int) -> Iterator[int]:
    """Steps after which something may be different."""
    for part in parts:
        if isinstance(part, _Edit):
            if 1 <= part.last <= steps:
                yield part.last
            yield from _ends((*part.before, *part.after), steps)
        elif isinstance(part, _Turns):
            yield from range(1, steps + 1)


def _partners(marks: Sequence[re.Match[str]]) -> dict[int, int]:
    """Of brackets, by place among the marks; those that are not closed by their own kind have none."""
    found: dict[int, int] = {}
    waiting: list[int] = []
    open_now = {"(": 0, "[": 0}
    for i, mark in enumerate(marks):
        kind = mark.group()
        if kind in open_now:
            waiting.append(i)
            open_now[kind] += 1
        elif kind in ")]" and open_now["(" if kind == ")" else "["]:
            wanted, opener = "(" if kind == ")" else "[", ""
            while opener != wanted:
                place = waiting.pop()
                opener = marks[place].group()
                open_now[opener] -= 1
            found[place] = i
    return found


def _parts(
    text: str, marks: Sequence[re.Match[str]], partners: dict[int, int], first: int, last: int, at: int,
    end: int, steps: int, depth: int,
) -> tuple[_Part, ...]:  # fmt: skip
    """text[at:end], in which marks[first:last] lie, as parts."""
    if depth > DEEPEST:
        raise ParameterError(
            f"the prompt has brackets more than {DEEPEST} levels deep; simplify it", parameter="prompt"
        )

    def inner(begin: int, stop: int, before: int, after: int) -> tuple[_Part, ...]:
        return _parts(text, marks, partners, begin, stop, before, after, steps, depth + 1)

    found: list[_Part] = []
    i = first
    while i < last:
        closer = partners.get(i)
        if closer is None or marks[i].group() != "[":
            i += 1
            continue
        found.append(text[at : marks[i].start()])
        cuts = _cuts(marks, partners, i, closer)
        kinds = {marks[cut].group() for cut in cuts}
        begin, stop = marks[i].end(), marks[closer].start()
        when = (
            _WHEN.fullmatch(text, marks[cuts[-1]].end(), stop) if kinds == {":"} and len(cuts) < 3 else None
        )
        if when is not None:
            value = float(when[1])
            before = inner(i + 1, cuts[0], begin, marks[cuts[0]].start()) if len(cuts) == 2 else ()
            head = marks[cuts[0]].end() if len(cuts) == 2 else begin
            after = inner(cuts[0] + 1 if len(cuts) == 2 else i + 1, cuts[-1], head, marks[cuts[-1]].start())
            found.append(_Edit(before, after, min(steps, int(value * steps if value < 1 else value))))
        elif kinds == {"|"}:
            edges = [i, *cuts, closer]
            options = [
                inner(a + 1, b, marks[a].end(), marks[b].start())
                for a, b in zip(edges, edges[1:], strict=False)
            ]
            found.append(_Turns(tuple(options)))
        else:
            found += ["[", *inner(i + 1, closer, begin, stop), "]"]
        at, i = marks[closer].end(), closer + 1
    found.append(text[at:end])
    return tuple(part for part in found if part != "")


def _cuts(marks: Sequence[re.Match[str]], partners: dict[int, int], opener: int, closer: int) -> list[int]:
    """The colons and bars between a bracket and its partner that lie in no other brackets."""
    found, i = [], opener + 1
    while i < closer:
        if marks[i].group() in ":|":
            found.append(i)
        i = partners.get(i, i) + 1
    return found
