"""A template: a prompt with variables, their values, and which combinations to make.

template = "a {colour} {thing} on a {background} background"
cover = "pairs"            # every pair of values at least once; or "all" combinations

[values]
colour = ["red", "blue"]
thing = ["cat", "rocket"]
background = ["green", "white"]
num_steps = [4, 12]        # a variable named like a parameter sets it, too

[parameters]
guidance_scale = 2.0       # the same for every row
"""

from __future__ import annotations

import hashlib
import itertools
import math
import string
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pictura.batch.covering import pairwise_rows
from pictura.batch.rows import COLUMNS, Row, Source, row_of
from pictura.errors import FileError, InputError, did_you_mean, shown

__all__ = ["read"]

COVERS = ("pairs", "all")
PARTS = {"template", "cover", "values", "parameters"}


def read(path: Path) -> Source:
    """The rows of the template in a TOML file; FileError or InputError where there is something wrong."""
    try:
        data = path.read_bytes()
        content = tomllib.loads(data.decode())
    except (OSError, ValueError) as error:
        raise FileError(f"template {shown(path.name)} cannot be read: {shown(str(error), 150)}") from error
    for name in content:
        if name not in PARTS:
            raise InputError(f"{path.name} has the unknown entry {shown(name)}; {did_you_mean(name, PARTS)}")
    text, values = content.get("template"), content.get("values", {})
    if not isinstance(text, str):
        raise InputError(f'{path.name} has no template; give template = "a {{colour}} cat"')
    if not isinstance(values, dict) or not all(isinstance(v, list) and v for v in values.values()):
        raise InputError(f"{path.name}: give every variable in [values] a list of values")
    cover = content.get("cover", "pairs")
    if cover not in COVERS:
        raise InputError(f"{path.name}: cover {shown(cover)} is unknown; {did_you_mean(str(cover), COVERS)}")
    for name in _variables(text, path.name):
        if name not in values:
            raise InputError(f"{path.name}: variable {shown(name)} has no values; give some in [values]")
    for name in values:
        if name not in _variables(text, path.name) and name not in COLUMNS:
            raise InputError(f"{path.name}: variable {shown(name)} is not in the template; remove it")
    parameters = content.get("parameters", {})
    for name in parameters:
        if name not in COLUMNS:
            raise InputError(
                f"{path.name}: parameter {shown(name)} is unknown; {did_you_mean(name, COLUMNS)}"
            )
    return Template(
        name=path.name,
        digest=hashlib.sha256(data).hexdigest(),
        text=text,
        values=values,
        parameters=parameters,
        every=cover == "all",
    )


@dataclass(frozen=True, kw_only=True)
class Template:
    name: str
    digest: str
    text: str
    values: Mapping[str, Sequence[Any]]
    parameters: Mapping[str, Any]
    every: bool

    def count(self) -> int:
        sizes = [len(values) for values in self.values.values()]
        return math.prod(sizes) if self.every or not sizes else len(self._pairs)

    def rows(self, start: int = 0) -> Iterator[Row]:
        names, lists = list(self.values), list(self.values.values())
        chosen: Iterator[tuple[int, ...]] = (
            itertools.product(*(range(len(values)) for values in lists))
            if self.every or not lists
            else iter(self._pairs)
        )
        for number, row in itertools.islice(enumerate(chosen), start, None):
            found = {name: values[at] for name, values, at in zip(names, lists, row, strict=True)}
            given = {name: value for name, value in found.items() if name in COLUMNS}
            prompt = self.text.format_map({name: str(value) for name, value in found.items()})
            told = ", ".join(f"{name}={shown(value, 30)}" for name, value in found.items())
            place = f"{self.name}, row {number} ({told})"
            yield row_of(number, place, {"prompt": prompt, **self.parameters, **given}, "prompt")

    @cached_property
    def _pairs(self) -> list[tuple[int, ...]]:
        return pairwise_rows([len(values) for values in self.values.values()])


def _variables(text: str, name: str) -> list[str]:
    try:
        parts = list(string.Formatter().parse(text))
    except ValueError as error:
        raise InputError(
            f"{name}: the template's braces do not match ({error}); write {{{{ for a brace"
        ) from error
    found = []
    for _, variable, form, conversion in parts:
        if variable is not None:
            if not variable.isidentifier() or form or conversion:
                raise InputError(f"{name}: {shown('{' + variable + '}')} is no variable; give a name alone")
            found.append(variable)
    return found
