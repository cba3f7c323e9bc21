"""Bodies as JSON values, whatever was sent: strict where a value could be misread, quick to refuse."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from fastapi import Request

from pictura.errors import ParameterError

__all__ = ["json_object"]

MOST = 200_000  # values; each takes far more memory than the bytes that say it
DEEPEST = 64


async def json_object(request: Request) -> dict[str, Any]:
    """The object that the body is; ParameterError for everything else."""
    return parsed(await request.body())


def parsed(body: bytes) -> dict[str, Any]:
    """See `json_object`."""
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST:
        raise ParameterError(f"the body has more than {MOST:,} values; send less", parameter="body")
    try:
        found = json.loads(body.decode(), parse_constant=_no_number, parse_float=_finite)
        _check(found, b"\\u" in body)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"the body is not JSON ({_short(error)})", parameter="body") from None
    if not isinstance(found, dict):
        raise ParameterError("the body is no JSON object; send {...}", parameter="body")
    return found


def _check(found: object, escaped: bool) -> None:
    """ValueError where it is deep, or has half a character: nothing later need fear either."""
    left = [(found, 1)]
    while left:
        value, depth = left.pop()
        if depth > DEEPEST:
            raise ValueError("it is nested too deep")
        if isinstance(value, dict):
            left += [(inner, depth + 1) for inner in value.values()]
            for name in value if escaped else ():
                name.encode()
        elif isinstance(value, list):
            left += [(inner, depth + 1) for inner in value]
        elif escaped and isinstance(value, str):
            value.encode()


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _short(error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "half a surrogate pair"
    return str(error)[:100] if isinstance(error, ValueError) else "it is nested too deep"
