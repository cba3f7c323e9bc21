"""Keys: held so that they do not show, and taken out of whatever is told."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NoReturn

from pictura.errors import ParameterError

__all__ = ["Secret", "holds", "redacted"]

_HIDDEN = "***"
_PIECE = 6  # letters from which on a part of a key is one itself
_STARRED = re.compile(r"[^\s'\"]{2,}\*{3,}[^\s'\",;]*")  # how services shorten a key that they echo


class Secret:
    """A key. Its repr and str do not show it, and no pickle holds it; `reveal` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str, name: str = "api_key", *, spaces: bool = False) -> None:
        plain = value.strip() if isinstance(value, str) else ""
        if not plain or not plain.isascii() or not plain.isprintable() or (" " in plain and not spaces):
            raise ParameterError(
                f"{name} is empty or has characters that no key has; copy it again", parameter=name
            )
        self._value = plain

    def reveal(self) -> str:
        return self._value

    def parts(self) -> list[Secret]:
        """This key, and what it is made of where it is several (user:password, Bearer KEY)."""
        pieces = [piece for piece in re.split("[: ]+", self._value) if len(piece) >= _PIECE]
        return [self, *(Secret(piece) for piece in pieces if piece != self._value)]

    def __repr__(self) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise ParameterError(
            "a key is not written into a pickle; open the model again where it is used", parameter="api_key"
        )


def redacted(text: str, secrets: Iterable[Secret]) -> str:
    """`text` without the secrets, also as encodings spell them, or shortened with stars."""
    for secret in secrets:
        text = _forms(secret.reveal()).sub(_HIDDEN, text)
    return _STARRED.sub(_HIDDEN, text)


def holds(value: object, secrets: Iterable[Secret]) -> bool:
    """Whether a secret is anywhere in a value."""
    return any(_forms(secret.reveal()).search(str(value)) for secret in secrets)


@lru_cache(100)
def _forms(value: str) -> re.Pattern[str]:
    """A key in any case, its letters as they are or as URLs, JSON, HTML, names have them; base64 and hex."""
    if len(value) < 4:  # nobody's key; taking it out would take words apart
        return re.compile(r"(?!)")
    letters = "".join(map(_spelled, value))
    encoded = "|".join(map(re.escape, (value.encode().hex(), *_in_base64(value))))
    return re.compile(f"{letters}|{encoded}", re.IGNORECASE)


def _spelled(letter: str) -> str:
    code, plain = ord(letter), rf"\\?{re.escape(letter)}"
    in_names = "" if letter.isalnum() else "|[-_ ]"
    return rf"(?:{plain}{in_names}|%{code:02x}|\\u{code:04x}|&#0*{code};|&#x0*{code:x};)"


def _in_base64(value: str) -> Iterator[str]:
    """What base64 of a text with `value` anywhere in it has for sure, in both alphabets."""
    for before in range(3):  # bytes of the neighbours in the first group of three
        plain = base64.b64encode(bytes(before) + value.encode()).decode()
        first, last = (0, 2, 3)[before], (before + len(value)) * 8 // 6
        yield plain[first:last]
        yield plain[first:last].replace("+", "-").replace("/", "_")
