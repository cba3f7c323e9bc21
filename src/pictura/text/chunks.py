"""From a prompt's pieces to the rows of ids that an encoder reads, with the weight of each id.

CLIP reads 77 tokens. Longer prompts are read in chunks of 75 and the answers put one after the other; a chunk
ends at the last comma where one is among its last 20 tokens, as in AUTOMATIC1111's web interface.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from pictura.errors import ParameterError, shown
from pictura.text.prompts import Piece
from pictura.text.tokenizer import Tokenizer

__all__ = ["Chunk", "chunked", "empty", "single"]

BACK = 20  # so far from a chunk's end a comma is looked for
Sections = Sequence[Sequence[Piece]]
Names = Mapping[str, Sequence[int]]  # a word of its own -> the ids that it stands for
_NONE: Names = {}


@dataclass(frozen=True, slots=True)
class Chunk:
    """ids, start and end and padding among them, and the weight of each; lost: texts that were cut off."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    lost: str = ""


@dataclass(frozen=True, slots=True)
class _Unit:
    """Ids that stay together: one token, or all vectors of a name."""

    ids: tuple[int, ...]
    weight: float
    comma: bool = False


def chunked(tokenizer: Tokenizer, sections: Sections, length: int, names: Names = _NONE) -> tuple[Chunk, ...]:
    """At least one chunk of `length` ids for each section. `names` are found in the text, in any case, where
    no letter or digit is beside them. ParameterError for one with more vectors than a chunk has room for."""
    room = tokenizer.room(length)
    rows: list[list[_Unit]] = []
    for section in sections:
        row: list[_Unit] = []
        rows.append(row)
        for unit in _units(tokenizer, section, names):
            if len(unit.ids) > room:
                raise ParameterError(
                    f"an embedding in the prompt has {len(unit.ids)} vectors, more than the {room} that are "
                    "read at once; use another",
                    parameter="embeddings",
                )
            used = sum(len(earlier.ids) for earlier in row)
            if used + len(unit.ids) > room:
                row = _rest(row, used == room and not unit.comma)
                rows.append(row)
            row.append(unit)
    return tuple(_chunk(tokenizer, row, length) for row in rows)


def single(tokenizer: Tokenizer, sections: Sections, length: int) -> Chunk:
    """One chunk of `length` ids: an encoder such as T5 reads as many as it is given. What does not fit is cut
    off and told in `lost`."""
    units = list(_units(tokenizer, _spaced(sections), _NONE))
    room = tokenizer.room(length)
    lost = tokenizer.decode(chain.from_iterable(unit.ids for unit in units[room:]))
    return _chunk(tokenizer, units[:room], length, lost)


def empty(tokenizer: Tokenizer, length: int) -> Chunk:
    """The chunk without a word, which shorter prompts are filled up with."""
    return _chunk(tokenizer, (), length)


def _chunk(tokenizer: Tokenizer, units: Sequence[_Unit], length: int, lost: str = "") -> Chunk:
    ids = tuple(chain.from_iterable(unit.ids for unit in units))
    inner = chain.from_iterable([unit.weight] * len(unit.ids) for unit in units)
    before = [1.0] * len(tokenizer.start)
    weights = [*before, *inner]
    return Chunk(tokenizer.padded(ids, length), (*weights, *[1.0] * (length - len(weights))), lost)


def _rest(row: list[_Unit], full: bool) -> list[_Unit]:
    """What the next chunk begins with: the units after the last comma if it is near; `row` loses them."""
    at = next((i for i in reversed(range(len(row))) if row[i].comma), None)
    if not full or at is None or sum(len(unit.ids) for unit in row[at:]) > BACK:
        return []
    rest = row[at + 1 :]
    del row[at + 1 :]
    return rest


def _units(tokenizer: Tokenizer, section: Sequence[Piece], names: Names) -> list[_Unit]:
    """The words of a section, read as one text, so that brackets change no token; a token's weight is that of
    its last character."""
    text = "".join(piece.text for piece in section)
    ends = list(accumulate(len(piece.text) for piece in section))

    def weight(at: int) -> float:
        return section[min(bisect_right(ends, at), len(section) - 1)].weight

    found: list[_Unit] = []

    def read(start: int, end: int) -> None:
        for number, stop in tokenizer.tokens(text[start:end]):
            found.append(_Unit((number,), weight(start + stop - 1), number == tokenizer.comma))

    at = 0
    for match in _pattern(names).finditer(text) if names else ():
        read(at, match.start())
        ids = names[_known(match.group(), names)]
        found.append(_Unit(tuple(ids), weight(match.end() - 1)))
        at = match.end()
    read(at, len(text))
    return found


def _pattern(names: Names) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)


def _known(text: str, names: Names) -> str:
    known = {name.lower(): name for name in names}
    if text.lower() not in known:  # a letter whose lower case is several
        raise ParameterError(f"embedding {shown(text)} is ambiguous; rename it", parameter="embeddings")
    return known[text.lower()]


def _spaced(sections: Sections) -> list[Piece]:
    """All sections as one text: BREAK says nothing to an encoder that reads in one go."""
    pieces = [*sections[0]]
    for section in sections[1:]:
        pieces += [Piece(" "), *section]
    return pieces
