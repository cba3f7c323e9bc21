"""What a model says of its parameters, found without reading its weights and without downloading anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, NamedTuple

from pictura import checkpoints, families, presets, samplers
from pictura.errors import ParameterError, PicturaError
from pictura.formats.recipe import Recipe
from pictura.inputs import Model, complete
from pictura.options import Option
from pictura.request import MAX_SIDE, MAX_STEPS, Request

__all__ = ["Facts", "Range", "facts"]

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


class Range(NamedTuple):
    """From `low` to `high` in steps of `multiple`."""

    low: int
    high: int
    multiple: int = 1


@dataclass(frozen=True, kw_only=True)
class Facts:
    """parameters: of the common ones, those it can use; None where nobody knows before it is loaded.
    defaults: its own values, by name; what is not there is not known."""

    parameters: frozenset[str] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    steps: Range = Range(1, MAX_STEPS)
    width: Range = Range(1, MAX_SIDE)
    height: Range = Range(1, MAX_SIDE)
    samplers: tuple[str, ...] = field(default_factory=samplers.names)
    description: str = ""

    def uses(self, name: str) -> bool:
        """Whether the model can, or for all one knows might, use a common parameter."""
        return self.parameters is None or name in self.parameters


def facts(preset: str) -> Facts:
    """What is known of `preset`: all of what lies on this machine, of others what they say beforehand.

    PresetError where a folder, a file or a name is none that there could be.
    """
    if presets.remote(preset) is not None:
        return _of_service(preset)
    known = presets.presets().get(preset)
    about = known.description if known is not None else ""
    away = (known.uri if known is not None and known.uri is not None else preset).partition("://")[1]
    if find_spec("torch") is None or (away and (known is None or not known.family)):
        return Facts(description=about)
    if away:
        assert known is not None
        owner = families.load(known.family)
        return Facts(parameters=owner.parameters, options=owner.options, description=about)
    recipe = checkpoints.find(preset).recipe
    if recipe.family == checkpoints.DIFFUSERS:  # what its pipeline can do is known when that is there
        return Facts(description=about)
    return replace(_probed(recipe), description=about)


def _of_service(preset: str) -> Facts:
    for key in ({}, {"api_key": "comes-later"}):  # nothing is sent here
        with suppress(PicturaError):
            _, provider = presets.connect(preset, **key)
            return Facts(parameters=provider.parameters, options=getattr(provider, "options", {}))
    return Facts()


def _probed(recipe: Recipe) -> Facts:
    """What the family's own checks allow, asked without memory for its networks."""
    import torch

    with torch.device("meta"):
        family: Any = families.load(recipe.family).from_config(recipe.architecture)
    if assets := checkpoints.assets(recipe):
        family.assets.update(assets)
    defaults = {**family.defaults(), **recipe.defaults}
    model = Model(name=recipe.family, family=family, defaults=defaults)

    def allowed(**values: Any) -> bool:
        try:
            complete(Request(prompt="", seed=0, **values), model)
        except ParameterError:
            return False
        return True

    found = Facts(parameters=family.parameters, options=family.options, defaults=defaults)
    if found.uses("sampler"):
        found = replace(found, samplers=tuple(n for n in samplers.names() if allowed(sampler=n)))
    if found.uses("size") and "size" in defaults:
        width, height = defaults["size"]
        wide = _range(width, lambda side: allowed(size=(side, height)))
        high = _range(height, lambda side: allowed(size=(width, side)))
        found = replace(found, width=wide, height=high)
    return found


def _range(usual: int, allowed: Callable[[int], bool]) -> Range:
    """The sides that are possible, where those between two possible ones are possible too."""
    multiple = next((step for step in _MULTIPLES if allowed(usual + step)), None)
    if multiple is None:
        return Range(usual, usual)
    low = _last(usual, 0, -multiple, allowed)
    return Range(low, _last(usual, MAX_SIDE + 1, multiple, allowed), multiple)


def _last(good: int, end: int, step: int, allowed: Callable[[int], bool]) -> int:
    """The possible side nearest to `end`, which is none, by halving."""
    few, many = 0, -(-(end - good) // step)  # steps that are possible, and too many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if allowed(good + middle * step) else (few, middle)
    return good + few * step
