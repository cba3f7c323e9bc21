"""The form of a model: its parameters as DashAI shows and checks them, by the names DashAI's models have."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, create_model

from pictura.errors import ParameterError
from pictura.options import parsed_options
from pictura.request import Request, random_seed

from .base import (
    BaseSchema,
    MultilingualString,
    enum_field,
    float_field,
    int_field,
    schema_field,
    string_field,
)
from .facts import Facts

__all__ = ["requests", "schema"]

MAX_IMAGES = 100
MAX_GUIDANCE = 100.0
MAX_LISTED = 12  # options that the form describes
REQUEST = {known.name for known in fields(Request)}
BROWSER = 2**53 - 1  # the largest whole number that a page's JavaScript can hold


class _Field(NamedTuple):
    """default: None where the model's own is not known; then it may be left empty, which means that one."""

    name: str
    title: str
    kind: Any
    default: Any
    about: str


def schema(name: str, facts: Facts, *, choose_model: bool) -> type[BaseSchema]:
    """The schema of a model. choose_model: with a field that says which one.

    DashAI takes every field for required; here each has a default, for those who ask over HTTP.
    """
    content: dict[str, Any] = {}
    for field in _fields(facts, choose_model):
        kind = field.kind
        if field.default is None:  # a page sends "" for what was left empty
            kind = Annotated[kind | None, BeforeValidator(lambda value: None if value == "" else value)]
        described = schema_field(kind, field.default, field.about, MultilingualString(en=field.title))
        content[field.name] = (described, field.default)
    made: type[BaseSchema] = create_model(f"{name}Schema", __base__=BaseSchema, **content)
    return made


def requests(prompt: str, said: Mapping[str, Any], *, model: str, seeded: bool) -> list[Request]:
    """A request for each picture that the form asks for. seeded: draw a seed where it says none.

    ParameterError for what no request can be.
    """
    size = (said.get("width"), said.get("height"))
    if (size[0] is None) != (size[1] is None):
        raise ParameterError("width and height go together; give both", parameter="size")
    seed: int | None = said["seed"]
    if seed is not None and seed < 0:
        seed = random_seed() if seeded else None
    options = _options(said.get("options") or "", said)
    first = Request(
        prompt=prompt,
        negative_prompt=said.get("negative_prompt") or None,
        size=None if None in size else size,  # type: ignore[arg-type]  # both are there
        num_steps=said.get("num_inference_steps"),
        guidance_scale=said.get("guidance_scale"),
        sampler=said.get("sampler") or None,
        schedule=options.pop("schedule", None),
        options=options,
        model=model,
    )
    return [
        first.amended(seed=None if seed is None else seed + copy)
        for copy in range(said["num_images_per_prompt"])
    ]


def _options(text: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """NAME=VALUE pairs; those that have a field of their own, here or in requests, are refused."""
    try:
        return parsed_options(shlex.split(text), (said.keys() | REQUEST) - {"schedule"})
    except ValueError as error:
        raise ParameterError(
            f"options cannot be read: {error}; give NAME=VALUE", parameter="options"
        ) from error


def _fields(facts: Facts, choose_model: bool) -> Iterator[_Field]:
    own = facts.defaults.get
    if choose_model:
        about = (
            "A model of Pictura: a name such as scenes, a folder or a .safetensors file, hf://ORG/NAME, or a "
            "remote one such as openai://MODEL, whose key is in the environment of DashAI."
        )
        yield _Field("model", "Model", string_field(), "scenes", about)
    if facts.uses("negative_prompt"):
        about = "What the picture should not show. It needs a guidance scale above 1."
        yield _Field("negative_prompt", "Negative prompt", string_field(), None, about)
    if facts.uses("num_steps"):
        kind = int_field(ge=facts.steps.low, le=facts.steps.high)
        about = "Steps of each picture; more take longer."
        yield _Field("num_inference_steps", "Steps", kind, own("num_steps"), about)
    if facts.uses("guidance_scale"):
        kind = float_field(ge=0.0, le=MAX_GUIDANCE)
        about = "How strongly the prompt is followed; 1 is without guidance."
        yield _Field("guidance_scale", "Guidance scale", kind, own("guidance_scale"), about)
    if facts.uses("sampler"):
        kind = enum_field(enum=list(facts.samplers))
        yield _Field("sampler", "Sampler", kind, own("sampler"), "The way from noise to picture.")
    if facts.uses("size"):
        sides = zip(
            ("width", "height"), (facts.width, facts.height), own("size") or (None, None), strict=True
        )
        for name, range, default in sides:
            kind = int_field(ge=range.low, le=range.high, multiple_of=range.multiple)
            yield _Field(name, name.capitalize(), kind, default, f"The {name} of the picture in pixels.")
    about = (
        "The same seed, 0 too, gives the same picture; further pictures of a prompt have seed + 1, seed + 2, "
        "... With -1 it is random, and recorded in the picture."
    )
    yield _Field("seed", "Seed", int_field(ge=-1, le=BROWSER), -1, about)
    kind = int_field(ge=1, le=MAX_IMAGES)
    yield _Field("num_images_per_prompt", "Pictures", kind, 1, "How many pictures to make of a prompt.")
    yield _Field("options", "Options", string_field(), None, _about_options(facts))


def _about_options(facts: Facts) -> str:
    listed = [
        f"{name}, {option.help}"
        for name, option in facts.options.items()
        if option.attach is None and option.type not in (list, dict)
    ]
    more = [f"{len(listed) - MAX_LISTED} more"] if len(listed) > MAX_LISTED else []
    known = f" It knows {'; '.join([*listed[:MAX_LISTED], *more])}." if listed else ""
    return f"What else the model can be told, as NAME=VALUE, several with spaces between.{known}"
