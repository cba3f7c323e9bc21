"""Parts of models as published single files hold them, and how they are found in there.

A `Part` is data about one network: which tensor gives it away, under which prefixes it is published, how its
configuration follows from its shapes, and the rules that lead to our names. Families list theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pictura.errors import CheckpointError, shown
from pictura.formats.rules import Rule, table, translate
from pictura.formats.safetensors import Entry

__all__ = ["Config", "Found", "Part", "Shapes", "count", "find"]

Config = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
Files = Mapping[Path, Mapping[str, Entry]]


@dataclass(frozen=True, kw_only=True)
class Part:
    """component: its name in a diffusers folder. marker: a tensor that nothing else has. prefixes: where
    published files keep it, the first is where we write it; "" is a file of its own.

    width: of the marker's last axis, where files of its own hold different parts under the same names.
    ignored: names, or beginnings up to a dot, that carry nothing the network needs; `unused` finds more.
    """

    component: str
    marker: str
    prefixes: tuple[str, ...]
    config: Callable[[Shapes], dict[str, Any]]
    rules: Callable[[Config], Iterable[Rule]]
    width: int | None = None
    ignored: tuple[str, ...] = ()
    unused: Callable[[Shapes], tuple[str, ...]] = lambda shapes: ()

    def taken(self, entries: Mapping[str, Entry], prefix: str = "") -> dict[str, Entry]:
        """The tensors below `prefix` that the network needs, without it."""
        below = _below(entries, prefix, self.ignored)
        return _below(below, "", self.unused({name: entry.shape for name, entry in below.items()}))


@dataclass(frozen=True, kw_only=True)
class Found:
    """A part and its tensors, without the prefix they have in `file`."""

    part: Part
    file: Path
    entries: Mapping[str, Entry]

    @property
    def shapes(self) -> Shapes:
        return {name: entry.shape for name, entry in self.entries.items()}

    def read(self, config: Config | None = None) -> tuple[dict[str, Any], dict[str, Entry]]:
        """(configuration, tensors by our names, the component's first). `config` where one is known.

        CheckpointError where the tensors are not what the marker promised.
        """
        try:
            known = dict(self.part.config(self.shapes) if config is None else config)
            ours = translate(self.entries, table(self.part.rules(known)))
        except KeyError as error:
            raise CheckpointError(
                f"{str(self.file)!r} lacks {shown(error.args[0])} of a {self.part.component}; get it again"
            ) from error
        except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(
                f"{str(self.file)!r}: the shapes of its {self.part.component} do not fit together; get it "
                "again"
            ) from error
        return known, {f"{self.part.component}.{name}": entry for name, entry in ours.items()}


def find(files: Files, part: Part) -> Found | None:
    """`part` in one of `files`; None where none holds it, CheckpointError where several do."""
    found = [
        Found(part=part, file=path, entries=part.taken(entries, prefix))
        for path, entries in files.items()
        for prefix in _prefixes(entries, part)
    ]
    if len(found) > 1:
        raise CheckpointError(
            f"both {str(found[0].file)!r} and {str(found[1].file)!r} hold a {part.component}; give one of "
            "them"
        )
    return found[0] if found else None


def count(names: Iterable[str], prefix: str) -> int:
    """How many numbered things there are below `prefix`: one more than the largest number that follows it."""
    return max((number + 1 for number in _numbers(names, f"{prefix}.")), default=0)


def _below(entries: Mapping[str, Entry], prefix: str, ignored: Sequence[str]) -> dict[str, Entry]:
    heads = tuple(f"{name}." for name in ignored)
    return {
        short: entry
        for name, entry in entries.items()
        if name.startswith(prefix)
        and (short := name[len(prefix) :]) not in ignored
        and not short.startswith(heads)
    }


def _numbers(names: Iterable[str], head: str) -> Iterator[int]:
    for name in names:
        if name.startswith(head):
            number = name[len(head) :].partition(".")[0]
            if number.isascii() and number.isdigit() and len(number) < 4:
                yield int(number)


def _prefixes(entries: Mapping[str, Entry], part: Part) -> Iterator[str]:
    for prefix in part.prefixes:
        entry = entries.get(prefix + part.marker)
        if entry is not None and (prefix or part.width is None or entry.shape[-1:] == (part.width,)):
            yield prefix
