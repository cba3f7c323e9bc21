"""The values of a body by name, read forgivingly: null is absent, 4.0 is 4, in forms texts are read.

What could be misread is refused: true is no number, "4" is none in JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pictura.errors import ParameterError, shown

__all__ = ["Fields", "common"]

EXACT = 2**53  # floats above are not exactly the integers that were meant


class Fields:
    """from_form: the values are texts, as forms and query strings have them."""

    def __init__(self, values: Mapping[str, Any], *, from_form: bool = False) -> None:
        self._values = {name: value for name, value in values.items() if value is not None}
        self._from_form = from_form

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str) -> Any:
        """The value as it came; None where there is none."""
        return self._values.get(name)

    def first(self, *names: str) -> str:
        """The first of `names` that was given, else the first at all."""
        return next((name for name in names if name in self._values), names[0])

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is None or isinstance(value, str):
            return value
        raise ParameterError(f"{name} is {shown(value)}; give a text", parameter=name)

    def whole(self, name: str, least: int | None = None, most: int | None = None) -> int | None:
        """A whole number, within the range where there is one."""
        value = self._number(name)
        if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT:
            value = int(value)
        inside = isinstance(value, int) and (least is None or value >= least)
        if value is None or (inside and (most is None or value <= most)):
            return value  # type: ignore[return-value]  # a float is not inside
        span = "" if least is None else f" {least} or more" if most is None else f" {least}..{most}"
        raise ParameterError(f"{name} is {shown(value)}; give a whole number{span}", parameter=name)

    def number(self, name: str) -> float | None:
        value = self._number(name)
        if isinstance(value, int) and abs(value) > EXACT:
            raise ParameterError(f"{name} is {shown(value)}; give a smaller number", parameter=name)
        return value

    def flag(self, name: str) -> bool | None:
        value = self._values.get(name)
        if self._from_form and isinstance(value, str):
            value = {"true": True, "1": True, "false": False, "0": False}.get(value.lower(), value)
        if value is None or isinstance(value, bool):
            return value
        raise ParameterError(f"{name} is {shown(value)}; give true or false", parameter=name)

    def choice(self, name: str, choices: Iterable[str], default: str) -> str:
        value, known = self._values.get(name, default), tuple(choices)
        if value not in known:
            raise ParameterError(
                f"{name} is {shown(value)}; choose one of {', '.join(known)}", parameter=name
            )
        return str(value)

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._values.get(name)
        if self._from_form and isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                pass
        if value is None or isinstance(value, dict):
            return value or {}
        raise ParameterError(f"{name} is {shown(value)}; give an object", parameter=name)

    def _number(self, name: str) -> int | float | None:
        value = self._values.get(name)
        if self._from_form and isinstance(value, str) and len(value) < 40 and value.isascii():
            for kind in (int, float):
                try:
                    value = kind(value)
                    break
                except ValueError:
                    continue
        right = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is None or right:
            return value
        raise ParameterError(f"{name} is {shown(value)}; give a number", parameter=name)


def common(fields: Fields) -> dict[str, Any]:
    """What clients may say beyond their own API, as fields of a Request: by our names or the usual others."""
    steps = fields.first("num_steps", "num_inference_steps", "steps")
    options = fields.mapping("options")
    if (strength := fields.number("strength")) is not None:
        options["strength"] = strength
    return {
        "negative_prompt": fields.text("negative_prompt"),
        "seed": fields.whole("seed"),
        "num_steps": fields.whole(steps),
        "guidance_scale": fields.number("guidance_scale"),
        "sampler": fields.text("sampler"),
        "schedule": fields.text("schedule"),
        "options": options,
    }
