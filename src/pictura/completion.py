"""From what a call says to complete requests: nothing left open, nothing that the model cannot use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pictura.attachments import attached
from pictura.errors import ParameterError, shown
from pictura.families import Family, Option
from pictura.inputs import in_memory, requests
from pictura.request import MAX_SEED, Request, random_seed

__all__ = ["Call", "Item", "Model", "complete", "items", "with_attachments", "whole"]

# What a model may or may not be able to use; every one uses the prompt and the seed.
_COMMON = ("negative_prompt", "size", "num_steps", "guidance_scale", "sampler", "schedule")
_ALLOWED: dict[type, Any] = {float: (int, float), list: tuple, dict: Mapping}  # as requests hold them
_KINDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list",
    dict: "a mapping",
}  # fmt: skip
_FIELDS = {known.name for known in fields(Request)}


@dataclass(frozen=True, kw_only=True)
class Model:
    """What completing a request needs to know. defaults: the preset's over the family's, by name."""

    name: str
    family: Family
    defaults: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture to make: its complete request, and the parameters that the model could not use."""

    index: int
    request: Request
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a call says about all of its pictures: `values` by the names of Request's fields.

    Checked when built (ParameterError), so that a bad value is told before any prompt is read.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    num_images: int = 1
    strict: bool = True

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.values.items() if value is not None}
        probe = Request(prompt="", seed=self.seed, options=self.options, **given)
        checked = {name: getattr(probe, name) for name in given}
        for name, value in [("values", checked), ("options", probe.options), ("seed", probe.seed)]:
            object.__setattr__(self, name, value)


def items(inputs: object, negatives: object, call: Call, model: Model) -> Iterator[Item]:
    """A numbered item for each picture: `num_images` adjacent ones for each request in `inputs`.

    Seeds are seed, seed + 1, ... over the whole call, or over the images of a request that has its own.
    Lists are checked whole before this returns; what is read lazily is checked as it comes.
    """
    found = _numbered(requests(inputs, negatives), call, model)
    return iter(list(found)) if in_memory(inputs) and in_memory(negatives) else found


def complete(request: Request, model: Model, *, strict: bool = True) -> tuple[Request, tuple[str, ...]]:
    """`request` with a value for all that the model uses, and the parameters that it cannot use.

    Those are a ParameterError when `strict`; so are, always, values that the model does not allow.
    """
    family = model.family
    usable = family.parameters | {"prompt", "seed"}
    given = [name for name in _COMMON if getattr(request, name) is not None]
    ignored = tuple(name for name in [*given, *request.options] if name not in usable)
    if ignored and strict:
        raise ParameterError(
            f"model {model.name!r} cannot use {ignored[0]}; it can use {', '.join(sorted(usable))}",
            parameter=ignored[0],
        )
    kept = with_attachments({n: v for n, v in request.options.items() if n not in ignored}, family)
    cleared: dict[str, Any] = {name: None for name in ignored if name in _COMMON}
    defaults = {name: value for name, value in model.defaults.items() if name in usable}
    done = replace(request, options=kept, model=model.name, **cleared).completed(defaults)
    for name, option in family.options.items():
        if name in done.options:
            _check(option, done.options[name])
    family.check(done)
    return done, ignored


def with_attachments(options: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """`options` with the pictures and files among them recorded by content; ParameterError for bad ones."""
    return {
        name: attached(value, name, option.attach)
        if (option := family.options.get(name)) is not None and option.attach is not None
        else value
        for name, value in options.items()
    }


def _numbered(given: Iterator[Request], call: Call, model: Model) -> Iterator[Item]:
    index = 0
    for request in given:
        merged = _merged(request, call)
        own = random_seed() if merged.seed is None and call.num_images > 1 else merged.seed
        for copy in range(call.num_images):
            seed = _plus(own, copy) if call.seed is None else _plus(call.seed, index)
            done, ignored = complete(replace(merged, seed=seed), model, strict=call.strict)
            yield Item(index=index, request=done, ignored=ignored)
            index += 1


def _merged(request: Request, call: Call) -> Request:
    """The call's values where the request leaves things open; ParameterError where they differ."""
    said = {**request.options, **{n: v for n in _FIELDS if (v := getattr(request, n)) is not None}}
    for name, value in [*call.values.items(), *call.options.items(), ("seed", call.seed)]:
        if value is not None and said.get(name, value) != value:
            raise ParameterError(
                f"{name} is {shown(said[name])} in the request and {shown(value)} in the call; say it once",
                parameter=name,
            )
    return replace(request, **call.values, options={**request.options, **call.options})


def whole(name: str, value: object, most: int, *, least: int = 1) -> int:
    """`value` if it is a whole number in this range; ParameterError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        message = f"{name} is {shown(value)}; give a whole number {least}..{most}"
        raise ParameterError(message, parameter=name)
    return value


def _plus(seed: int | None, more: int) -> int | None:
    if seed is not None and seed + more > MAX_SEED:
        raise ParameterError(
            f"seed is {seed}, which leaves too few for all pictures; give a smaller one", parameter="seed"
        )
    return None if seed is None else seed + more


def _check(option: Option, value: object) -> None:
    allowed = _ALLOWED.get(option.type, option.type)
    if not isinstance(value, allowed) or (isinstance(value, bool) and option.type is not bool):
        kind = _KINDS[option.type]
        raise ParameterError(f"{option.name} is {shown(value)}; give {kind}", parameter=option.name)
    if option.choices and value not in option.choices:
        raise ParameterError(
            f"{option.name} is {shown(value)}; choose one of {', '.join(option.choices)}",
            parameter=option.name,
        )
