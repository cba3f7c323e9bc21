"""Configurations of networks as files bring them: JSON dictionaries with diffusers' keys and defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from pictura.errors import PresetError, shown

T = TypeVar("T")
PerLevel = int | tuple[Any, ...]  # one number, or one for each level, or several for each level
Flags = bool | tuple[Any, ...]
_LARGEST = 1 << 20  # no width or count of a real network is near it


def read(kind: type[T], config: Mapping[str, Any], what: str, possible: Mapping[str, Sequence[Any]]) -> T:
    """The frozen dataclass `kind` from `config`; keys that `kind` does not know are left out.

    Values are checked against the annotations of `kind`: `int` (1 or more, 0 where that is the default),
    `float`, `bool`, `str`, `PerLevel`, `Flags` (one or several bools), `tuple[int, ...]`, `tuple[str, ...]`,
    each with or without `| None`. `possible` lists for some keys, of `kind` or not, the values there is code
    for. PresetError names the component `what`, the key, its value and what is possible.
    """
    given = {key: _plain(value) for key, value in config.items()}
    for key, values in possible.items():
        if key in given and given[key] not in values:
            listed = ", ".join(shown(value) for value in values)
            raise PresetError(f"{what}: {key} {shown(given[key])} is not supported; possible: {listed}")
    found = {}
    for field in fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            value = found[field.name] = given[field.name]
            told = _fits(str(field.type), value, 0 if field.default == 0 else 1)
            if told:
                raise PresetError(f"{what}: {field.name} {shown(value)} is not supported; possible: {told}")
    return kind(**found)


def per_level(what: str, key: str, value: Any, levels: int) -> tuple[Any, ...]:
    """`value` for each of `levels`: itself if it is one already, else repeated. PresetError if it is another
    number of values."""
    if not isinstance(value, tuple):
        return (value,) * levels
    if len(value) != levels:
        raise PresetError(
            f"{what}: {key} {shown(value)} has {len(value)} values; give one, or one for each of the {levels}"
        )
    return value


def divisible(what: str, width: int, parts: int, of: str) -> None:
    """PresetError unless `parts` divides `width`; `of` says what is dealt out to what."""
    if width % parts:
        raise PresetError(f"{what}: {width} {of} {parts}; choose numbers that divide")


def _plain(value: Any) -> Any:
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value


def _fits(annotation: str, value: Any, least: int) -> str:
    """What is possible, if `value` is not; else ""."""
    if value is None and annotation.endswith("| None"):
        return ""
    kind = annotation.removesuffix(" | None")
    if kind.startswith("tuple["):
        one = kind.removeprefix("tuple[").partition(",")[0]
        fits = isinstance(value, tuple) and value and not any(_fits(one, v, 1) for v in value)
        return "" if fits else f"a list of {one}"
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind == "int":
        return "" if whole and least <= value <= _LARGEST else f"a whole number from {least} to {_LARGEST}"
    if kind == "float":
        return "" if whole or isinstance(value, float) else "a number"
    if kind in ("PerLevel", "Flags"):
        one = {"PerLevel": "int", "Flags": "bool"}[kind]
        told = _fits(one, value, 1)
        several = isinstance(value, tuple) and value and not any(_fits(kind, v, 1) for v in value)
        return "" if several or not told else f"{told}, or a list of those"
    types: dict[str, type] = {"bool": bool, "str": str}
    return "" if isinstance(value, types[kind]) else {"bool": "true or false", "str": "text"}[kind]
