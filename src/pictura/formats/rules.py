"""Tensors under other names and in other forms: short rules that can be followed in both directions.

A `Rule` says that everything below one name of theirs is, below one name of ours (or several, which lie one
under the other in their tensor), the same numbers in a form that one small operation makes:

    ""            as they are
    "swap"        the two halves of the rows change places: (shift, scale) <-> (scale, shift)
    "transpose"   a matrix is stored the other way round
    "pointwise"   a matrix is stored as a convolution of 1 x 1

Names are compared part by part at their dots, so that "blocks.1" never means "blocks.10". Nothing is read
here: a tensor that is part of another is a shorter range of the same file's bytes, and what else has to be
done to the numbers is left as a note to whoever reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pictura.errors import CheckpointError, shown
from pictura.formats.safetensors import Entry

__all__ = ["Rule", "export", "named", "permuted", "table", "translate"]


class Rule(NamedTuple):
    """shares: rows of each of ours in proportion to each other; equal when empty. old: a spelling that is
    read and never written."""

    theirs: str
    ours: tuple[str, ...]
    form: str = ""
    shares: tuple[int, ...] = ()
    old: bool = False


Table = Mapping[str, Rule]  # by the name it begins with


def table(rules: Iterable[Rule]) -> Table:
    """Rules as `translate` looks them up."""
    return {rule.theirs: rule for rule in rules}


def named(pairs: Mapping[str, str], *, theirs: str = "", ours: str = "", old: bool = False) -> Iterator[Rule]:
    """A rule for each pair of names, all of them below `theirs` and `ours`."""
    for one, other in pairs.items():
        yield Rule(_joined(theirs, one), (_joined(ours, other),), old=old)


def translate(entries: Mapping[str, Entry], rules: Table) -> dict[str, Entry]:
    """Their tensors under our names; CheckpointError for one that no rule speaks of."""
    found: dict[str, Entry] = {}
    for name, entry in entries.items():
        rule, rest = _rule(name, rules)
        if rule is None:
            raise CheckpointError(
                f"tensor {shown(name)} in {str(entry.file)!r} belongs to no part of this network"
            )
        parts = _split(name, _formed(entry, rule.form), rule)
        found |= {ours + rest: part for ours, part in zip(rule.ours, parts, strict=True)}
    return found


def export(entries: Mapping[str, Entry], rules: Iterable[Rule]) -> dict[str, tuple[Entry, ...]]:
    """Our tensors under their names: for each of theirs, the ones that lie in it, one under the other.

    CheckpointError where one is left over, or one of several that belong together is missing.
    """
    back = {ours: (rule, at) for rule in rules if not rule.old for at, ours in enumerate(rule.ours)}
    places: dict[str, dict[int, Entry]] = {}
    wanted: dict[str, int] = {}
    for name, entry in entries.items():
        head, rest = _cut(name, back)
        if head is None:
            raise CheckpointError(f"tensor {shown(name)} has no place in a file of that layout")
        rule, at = back[head]
        theirs = rule.theirs + rest
        wanted[theirs] = len(rule.ours)
        places.setdefault(theirs, {})[at] = _formed(entry, rule.form, back=True)
    for theirs, parts in places.items():
        if len(parts) != wanted[theirs]:
            raise CheckpointError(f"tensor {shown(theirs)} would be incomplete; a part of it is missing")
    return {theirs: tuple(parts[at] for at in sorted(parts)) for theirs, parts in places.items()}


def permuted(entry: Entry, axes: Sequence[int]) -> Entry:
    """`entry` with its axes in another order."""
    axes = tuple(axes)
    steps = entry.steps or (("view", entry.shape),)
    return entry._replace(shape=tuple(entry.shape[axis] for axis in axes), steps=(*steps, ("permute", axes)))


def viewed(entry: Entry, shape: Sequence[int]) -> Entry:
    """`entry` in another shape of as many numbers."""
    shape = tuple(shape)
    return entry._replace(shape=shape, steps=(*entry.steps, ("view", shape)) if entry.steps else ())


def rows(entry: Entry, first: int, last: int) -> Entry:
    """Rows `first` to `last` (not with it) of `entry`."""
    shape = (last - first, *entry.shape[1:])
    if entry.steps:
        return entry._replace(shape=shape, steps=(*entry.steps, ("rows", (first, last))))
    each = (entry.end - entry.start) // entry.shape[0] if entry.shape[0] else 0
    return entry._replace(shape=shape, start=entry.start + first * each, end=entry.start + last * each)


def _formed(entry: Entry, form: str, *, back: bool = False) -> Entry:
    """`entry` from their form in ours, or back; one whose shape rules that out stays, and is refused
    later."""
    shape = entry.shape
    if form == "swap" and shape and shape[0] % 2 == 0:
        steps = entry.steps or (("view", shape),)
        return entry._replace(steps=(*steps, ("swap", ())))
    if form == "transpose" and len(shape) == 2:
        return permuted(entry, (1, 0))
    if form == "pointwise":
        if back and len(shape) == 2:
            return viewed(entry, (*shape, 1, 1))
        if not back and len(shape) == 4 and shape[2:] == (1, 1):
            return viewed(entry, shape[:2])
    return entry


def _split(name: str, entry: Entry, rule: Rule) -> list[Entry]:
    shares = rule.shares or (1,) * len(rule.ours)
    if len(shares) == 1:
        return [entry]
    unit, left = divmod(entry.shape[0] if entry.shape else 0, sum(shares))
    if left or not unit:
        raise CheckpointError(
            f"tensor {shown(name)} in {str(entry.file)!r} has shape {list(entry.shape)}, "
            f"whose rows cannot be dealt out to {', '.join(rule.ours)}"
        )
    ends = [unit * sum(shares[:at]) for at in range(len(shares) + 1)]
    return [rows(entry, *pair) for pair in zip(ends, ends[1:], strict=False)]


def _rule(name: str, rules: Table) -> tuple[Rule | None, str]:
    head, rest = _cut(name, rules)
    return (None if head is None else rules[head]), rest


def _cut(name: str, heads: Mapping[str, object]) -> tuple[str | None, str]:
    """The longest beginning of `name`, up to a dot, that is in `heads`, and what follows it."""
    head = name
    while head not in heads:
        if "." not in head:
            return None, ""
        head = head.rpartition(".")[0]
    return head, name[len(head) :]


def _joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)
