"""Bodies as JSON values, whatever was sent: strict where a value could be misread, quick to refuse."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fastapi import Request

from pictura.errors import ParameterError

__all__ = ["json_object"]


async def json_object(request: Request) -> dict[str, Any]:
    """The object that the body is; ParameterError for everything else."""
    return parsed(await request.body())


def parsed(body: bytes) -> dict[str, Any]:
    """See `json_object`."""
    try:
        found = json.loads(body.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"the body is not JSON ({_short(error)})", parameter="body") from None
    if not isinstance(found, dict):
        raise ParameterError("the body is no JSON object; send {...}", parameter="body")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _short(error: Exception) -> str:
    return str(error)[:100] if isinstance(error, ValueError) else "it is nested too deep"
