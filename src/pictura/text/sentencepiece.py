"""The pieces in `spiece.model`, the file of SentencePiece (Kudo and Richardson 2018), a protobuf message.

Read by a few rules of our own, with suspicion: https://protobuf.dev/programming-guides/encoding and
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from pictura.errors import PresetError

__all__ = ["Model", "read"]

MAX_BYTES = 64 * 2**20
UNIGRAM = 1


@dataclass(frozen=True, kw_only=True)
class Model:
    """pieces: (text, logarithm of its probability) in id order; charsmap: base64 of the table that says which
    characters are replaced by which before anything else, "" for none."""

    pieces: tuple[tuple[str, float], ...]
    charsmap: str


def read(data: bytes) -> Model:
    """The unigram model in `data`; PresetError for anything else."""
    if len(data) > MAX_BYTES:
        raise _unsound(f"it has {len(data):,} bytes, at most {MAX_BYTES:,} are read")
    pieces: list[tuple[str, float]] = []
    charsmap, kind = b"", UNIGRAM
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(_message(value)))
        elif number == 2:  # how it was trained
            kind = next((v for n, v in _fields(_message(value)) if n == 3 and isinstance(v, int)), kind)
        elif number == 3:  # how texts are normalised
            charsmap = next((v for n, v in _fields(_message(value)) if n == 2 and isinstance(v, bytes)), b"")
    if kind != UNIGRAM:
        raise _unsound("it is no unigram model, which T5's is")
    if len(pieces) < 3:
        raise _unsound(f"it has {len(pieces)} pieces, of which the third must be the unknown one")
    return Model(pieces=tuple(pieces), charsmap=base64.b64encode(charsmap).decode())


def _piece(data: bytes) -> tuple[str, float]:
    text, score = "", 0.0
    for number, value in _fields(data):
        if number == 1:
            try:
                text = _message(value).decode()
            except UnicodeDecodeError:
                raise _unsound("a piece is no UTF-8 text") from None
        elif number == 2 and isinstance(value, float):
            score = value
    if not math.isfinite(score):
        raise _unsound(f"a piece has the score {score}")
    return text, score


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """(number, value) of each field of a message: whole numbers, 32-bit floats, and bytes of known length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: int | float | bytes
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 1:
            value, at = _cut(data, at, 8)
        elif wire == 2:
            length, at = _varint(data, at)
            value, at = _cut(data, at, length)
        elif wire == 5:
            four, at = _cut(data, at, 4)
            value = struct.unpack("<f", four)[0]
        else:
            raise _unsound(f"a field has the unknown wire type {wire}")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the highest bit says that more follow. At most ten bytes."""
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise _unsound("a number has no end")


def _cut(data: bytes, at: int, length: int) -> tuple[bytes, int]:
    if length > len(data) - at:
        raise _unsound("it ends inside a field")
    return data[at : at + length], at + length


def _message(value: int | float | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _unsound("a field that must be bytes is a number")
    return value


def _unsound(what: str) -> PresetError:
    return PresetError(f"spiece.model is not sound: {what}; get the file anew")
