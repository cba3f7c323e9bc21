"""A request: all that decides a picture, as one frozen value that travels through JSON unchanged."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
import operator
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from pictura.errors import ParameterError, did_you_mean, shown

__all__ = [
    "MAX_PROMPT",
    "MAX_SEED",
    "MAX_SIDE",
    "MAX_STEPS",
    "Options",
    "Request",
    "parse_size",
    "random_seed",
]

MAX_PROMPT = 10_000  # characters
MAX_SIDE = 8192  # pixels
MAX_STEPS = 1000
MAX_SEED = 2**63 - 1


class Options(Mapping[str, Any]):
    """An immutable, hashable mapping of JSON values; lists become tuples, mappings become `Options`."""

    __slots__ = ("_items",)

    def __init__(self, values: Mapping[str, Any] = {}) -> None:  # noqa: B006 (never changed)
        empty = isinstance(values, dict) and not values  # as the default of `Request.options`, below, is
        self._items: dict[str, Any] = {} if empty else {k: _frozen(k, value) for k, value in _pairs(values)}

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __contains__(self, key: object) -> bool:  # the mapping's own would raise and catch an error
        return key in self._items

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default` where there is none."""
        return self._items.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[object, ...]:
        return Options, (_plain(self),)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One picture to make. `None` means: whatever the model's own default is.

    Checked when built, so a `Request` that exists is well formed; whether a certain model can carry it out
    is for that model to say. Raises ParameterError.

    size is (width, height) in pixels; "WIDTHxHEIGHT" is accepted and stored as the pair, "auto" as None.
    seed is 0..2^63-1. options holds what only some models know (JSON values).
    """

    prompt: str
    negative_prompt: str | None = None
    size: tuple[int, int] | None = None
    seed: int | None = None
    num_steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    schedule: str | None = None
    options: Mapping[str, Any] = Options()
    model: str | None = None

    def __post_init__(self) -> None:
        for name, value in self._normal().items():
            object.__setattr__(self, name, value)

    def validate(self) -> Request:
        """This request, if it is well formed, as every one is that was built the usual way."""
        self._normal()
        return self

    def completed(self, defaults: Mapping[str, Any], *, seeded: bool = True) -> Request:
        """Every `None` replaced from `defaults`, and a random seed drawn where there is none (if `seeded`).

        Names in `defaults` that are no field of a request go to `options`, unless already there.
        """
        if not defaults and not (seeded and self.seed is None):
            return self
        known = _NAMES
        given = {
            name: value for name, value in defaults.items() if name in known and getattr(self, name) is None
        }
        extra = {name: value for name, value in defaults.items() if name not in known and name != "options"}
        options = {**extra, **defaults.get("options", {}), **self.options}
        if seeded and self.seed is None and given.get("seed") is None:
            given["seed"] = random_seed()
        changed = given or len(options) != len(self.options)
        return replace(self, **given, options=options) if changed else self

    def amended(self, **values: Any) -> Request:
        """This request with other values that are known to be well formed: `replace` without its checks."""
        new: Request = object.__new__(type(self))
        new.__dict__.update(self.__dict__, **values)
        return new

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values of every field that is set."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: _plain(value) for name, value in values.items() if value is not None and value != {}}

    def to_json(self) -> str:
        """Canonical JSON: sorted names, no spaces, ASCII only. Equal requests give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Request:
        """The request whose `to_dict` is `values`; ParameterError for any other field or value."""
        known = {f.name for f in fields(cls)}
        for name in values:
            if name not in known:
                message = f"request field {shown(name)} is unknown; {did_you_mean(str(name), known)}"
                raise ParameterError(message, parameter=str(name))
        if "prompt" not in values:
            raise ParameterError("the request has no prompt; give one (it may be empty)", parameter="prompt")
        return cls(**{**values, "options": {} if values.get("options") is None else values["options"]})

    @classmethod
    def from_json(cls, text: str | bytes) -> Request:
        """The request that `to_json` wrote; ParameterError for anything else."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ParameterError(f"the request is not JSON: {shown(text)}", parameter="request") from error
        if not isinstance(values, dict):
            raise ParameterError(f"a request is a JSON object, not {shown(values)}", parameter="request")
        return cls.from_dict(values)

    def digest(self) -> str:
        """SHA-256 of `to_json`, 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def _normal(self) -> dict[str, Any]:
        """The fields that are set, as requests hold them."""
        options = self.options
        values = {
            "prompt": _text("prompt", self.prompt),
            "options": options if isinstance(options, Options) else Options(options),
        }
        for name, check in _CHECKS.items():
            if (value := getattr(self, name)) is not None:
                values[name] = check(name, value)
        return values


_NAMES = frozenset(f.name for f in fields(Request)) - {"options"}


def random_seed(most: int = 2**32 - 1) -> int:
    """A fresh seed up to `most`. Below 2^32, so that it is easy to copy and every other tool accepts it."""
    return secrets.randbelow(min(most + 1, 2**32))


def parse_size(value: object) -> tuple[int, int]:
    """(width, height) from a pair of whole numbers or "WIDTHxHEIGHT", each 1..8192; ParameterError."""
    message = f"size is {shown(value)}; give WIDTHxHEIGHT in pixels, each 1..{MAX_SIDE}, such as 128x128"
    pair: list[object]
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]{1,9})\s*[xX×]\s*([0-9]{1,9})\s*", value)
        pair = [int(side) for side in match.groups()] if match else []
    else:
        pair = list(value) if isinstance(value, (tuple, list)) else []
    sides = [_index(side) for side in pair]
    if len(sides) != 2 or any(side is None or not 1 <= side <= MAX_SIDE for side in sides):
        raise ParameterError(message, parameter="size")
    return sides[0], sides[1]  # type: ignore[return-value]  # None was refused above


def _size(_: str, value: object) -> tuple[int, int] | None:
    return None if value == "auto" else parse_size(value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ParameterError(f"{name} is {shown(value)}; give a text", parameter=name)
    if len(value) > MAX_PROMPT:
        message = f"{name} has {len(value):,} characters; at most {MAX_PROMPT:,} are allowed"
        raise ParameterError(message, parameter=name)
    if "\0" in value:
        raise ParameterError(
            f"{name} has a NUL character at {value.index(chr(0))}; remove it", parameter=name
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        message = f"{name} has half a surrogate pair at {error.start}; give well-formed Unicode"
        raise ParameterError(message, parameter=name) from None
    return str(value)  # a str subclass may behave unlike a text


def _name(name: str, value: object) -> str:
    text = _text(name, value)
    if not 1 <= len(text) <= 100:
        raise ParameterError(f"{name} is {shown(text)}; give a name of 1..100 characters", parameter=name)
    return text


def _index(value: object) -> int | None:
    """`value` as an int if it is a whole number type (NumPy's too) and no bool."""
    if _is_bool(value):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # that it may not fit is the question
    except TypeError:
        return None


def _is_bool(value: object) -> bool:
    return type(value).__name__ in ("bool", "bool_")  # Python's and NumPy's


def _whole(name: str, value: object, low: int, high: int, allowed: str) -> int:
    number = _index(value)
    if number is None or not low <= number <= high:
        raise ParameterError(f"{name} is {shown(value)}; give a whole number {allowed}", parameter=name)
    return number


def _finite(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, numbers.Real) and not _is_bool(value) else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ParameterError(f"{name} is {shown(value)}; give a finite number", parameter=name)
    return number


def _pairs(values: object) -> list[tuple[str, Any]]:
    if not isinstance(values, Mapping):
        raise ParameterError(
            f"options is {shown(values)}; give a mapping of names to values", parameter="options"
        )
    for key in values:
        _name("options", key)
    return list(values.items())


def _frozen(name: str, value: object, depth: int = 0) -> Any:
    message = f"option {shown(name)} is {shown(value)}; give a JSON value"
    if depth > 20:
        raise ParameterError(f"option {shown(name)} is nested too deeply", parameter=name)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(name, value)
    if (whole := _index(value)) is not None:
        return whole
    if isinstance(value, numbers.Real):
        if not math.isfinite(value):
            raise ParameterError(message, parameter=name)
        return float(value)
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(name, item, depth + 1) for item in value)
    if isinstance(value, Mapping):
        return Options({key: _frozen(name, item, depth + 1) for key, item in _pairs(value)})
    raise ParameterError(message, parameter=name)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


# Of the fields that may be None.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "negative_prompt": _text,
    "size": _size,
    "seed": partial(_whole, low=0, high=MAX_SEED, allowed="0..2^63-1"),
    "num_steps": partial(_whole, low=1, high=MAX_STEPS, allowed=f"1..{MAX_STEPS}"),
    "guidance_scale": _finite,
    "sampler": _name,
    "schedule": _name,
    "model": _text,
}
