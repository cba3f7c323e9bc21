"""What a service may be told about itself: its address, times and numbers, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pictura.errors import ParameterError, shown
from pictura.providers._secrets import Secret

__all__ = ["TIMEOUT", "address", "further_headers", "number", "origin", "ratio", "timeouts"]

TIMEOUT = (10.0, 180.0, 600.0)  # connect, read, total
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1
_FRAMING = frozenset({"connection", "content-length", "content-type", "host", "transfer-encoding"})


def address(given: str, title: str) -> str:
    text = given.strip().rstrip("/") if isinstance(given, str) else ""
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        sound = sound and parts.username is None and parts.password is None and "?" not in text
    except ValueError:
        sound = False
    if not sound or not text.isascii() or not text.isprintable() or " " in text:
        raise ParameterError(
            f"base_url is {_without_user(given)}; give the http or https address of {title}, without a query "
            "and with the key in api_key",
            parameter="base_url",
        )
    return text


def further_headers(given: Mapping[str, str] | None) -> dict[str, Secret]:
    """What the user wants sent with every call, by lower-case names. Any value may be a key."""
    headers = {}
    for name, value in (given or {}).items():
        sound = isinstance(name, str) and _HEADER.fullmatch(name) and name.lower() not in _FRAMING
        if not sound or not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ParameterError(
                f"header {shown(name)} cannot be sent; give names and values of plain ASCII, and none of "
                f"{', '.join(sorted(_FRAMING))}",
                parameter="headers",
            )
        headers[name.lower()] = Secret(value, "headers", spaces=True)
    return headers


def _without_user(given: object) -> str:
    """An address as it may be shown, though it has a password or a query in it."""
    text = str(given)
    scheme, slashes, rest = text.partition("://")
    return shown(f"{scheme}{slashes}{rest.rpartition('@')[2]}".partition("?")[0])


@lru_cache(1000)
def origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
        return parts.scheme, parts.hostname, port
    except ValueError:
        return "", url, None


def timeouts(given: float | Sequence[float] | None) -> tuple[float, float, float]:
    """(connect, read, total): all three, or the total alone."""
    if given is None:
        return TIMEOUT
    if isinstance(given, (list, tuple)):
        times = [float(number("timeout", each, 0.001, 1e6, float)) for each in given]
        if len(times) == 3:
            return times[0], times[1], times[2]
        message = f"timeout is {shown(given)}; give the seconds in all, or (connect, read, total)"
        raise ParameterError(message, parameter="timeout")
    total = float(number("timeout", given, 0.001, 1e6, float))
    return min(TIMEOUT[0], total), total, total


def number(name: str, value: Any, least: float, most: float, kind: type = int) -> Any:
    allowed = (int, float) if kind is float else int
    if isinstance(value, bool) or not isinstance(value, allowed) or not least <= value <= most:
        what = "a number" if kind is float else "a whole number"
        message = f"{name} is {shown(value)}; give {what} {least:g}..{most:g}"
        raise ParameterError(message, parameter=name)
    return value


_RATIOS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "9:21", "21:9")


def ratio(size: tuple[int, int]) -> str:
    """A size as services have it that know shapes only: the usual shape within 2 %, else its own."""

    def away(shape: str) -> float:
        width, _, height = shape.partition(":")
        return abs(math.log(size[0] * int(height) / (size[1] * int(width))))

    nearest = min(_RATIOS, key=away)
    if away(nearest) < 0.02:
        return nearest
    common = math.gcd(*size)
    return f"{size[0] // common}:{size[1] // common}"
