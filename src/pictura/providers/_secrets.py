"""Keys: held so that they do not show, and taken out of whatever is told."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from pictura.errors import ParameterError

__all__ = ["Secret", "redacted"]

_HIDDEN = "***"
_PIECE = 6  # letters from which on a part of a key is one itself
_STARRED = re.compile(r"[^\s'\"]{2,}\*{3,}[^\s'\",;]*")  # how services shorten a key that they echo


class Secret:
    """A key. Its repr and str do not show it; `reveal` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str, name: str = "api_key") -> None:
        plain = value.strip() if isinstance(value, str) else ""
        if not plain or not plain.isascii() or not plain.isprintable() or " " in plain:
            raise ParameterError(
                f"{name} is empty or has characters that no key has; copy it again", parameter=name
            )
        self._value = plain

    def reveal(self) -> str:
        return self._value

    def parts(self) -> list[Secret]:
        """This key, and what it is made of where it is several (user:password)."""
        pieces = [piece for piece in self._value.split(":") if len(piece) >= _PIECE]
        return [self, *(Secret(piece) for piece in pieces if piece != self._value)]

    def __repr__(self) -> str:
        return _HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def redacted(text: str, secrets: Iterable[Secret]) -> str:
    """`text` without the secrets, also percent-encoded, in base64 or shortened with stars."""
    for secret in secrets:
        value = secret.reveal()
        if len(value) < 4:  # nobody's key; taking it out would take words apart
            continue
        encoded = base64.b64encode(value.encode()).decode().rstrip("=")
        for form in {value, quote(value, safe=""), quote_plus(value), encoded}:
            text = text.replace(form, _HIDDEN)
    return _STARRED.sub(_HIDDEN, text)
