"""What `generate` is given, as complete requests: nothing left open, nothing that the model cannot use.

    a text                      {"prompts": text or texts, "negative_prompts": text or texts}
    a Request                   a list, a generator, a data set or a data loader of any of these

Requests come one at a time, each read when it is asked for. `columns` takes the rows and batches of data sets
apart. Nothing that the caller gave is changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import repeat
from typing import Any, Protocol

from pictura import samplers
from pictura.attachments import attached
from pictura.columns import SINGULAR, decoded, uneven, unstacked
from pictura.errors import ParameterError, did_you_mean, shown
from pictura.options import Option
from pictura.request import MAX_SEED, Options, Request, random_seed
from pictura.text import wording

__all__ = [
    "WINDOW", "Call", "Item", "Model", "Uses", "complete", "is_single", "items", "with_attachments", "whole",
]  # fmt: skip

WINDOW = 16  # pictures of one call that are worked on at once, and prompts that are read ahead

# What a model may or may not be able to use; every one uses the prompt.
_COMMON = ("negative_prompt", "size", "seed", "num_steps", "guidance_scale", "sampler", "schedule")
_ALLOWED: dict[type, Any] = {float: (int, float), list: tuple, dict: Mapping}  # as requests hold them
_KINDS = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list",
    dict: "a mapping",
}  # fmt: skip
_FIELDS = {known.name for known in fields(Request)}
_KEPT = {"template", "negative_template"}  # records rather than parameters
_MISSING = object()


class Uses(Protocol):
    """What a family or a provider says of the parameters that it can use."""

    @property
    def parameters(self) -> frozenset[str]: ...
    @property
    def options(self) -> Mapping[str, Option]: ...
    def check(self, request: Request) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Model:
    """What completing a request needs to know. defaults: the preset's over the family's, by name.

    seeds: the largest seed to draw where none is given; None where the model does not draw by seeds, so that
    one counts as a parameter like any other. passes_on: whether options that are not listed are used too.
    """

    name: str
    family: Uses
    defaults: Mapping[str, Any]
    seeds: int | None = 2**32 - 1
    passes_on: bool = False


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture to make: its complete request, and the parameters that the model could not use."""

    index: int
    request: Request
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a call says about all of its pictures: `values` by the names of Request's fields.

    Checked when built (ParameterError), so that a bad value is told before any prompt is read. wildcards is a
    folder, styles a file: no part of requests, which may come from strangers.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    num_images: int = 1
    strict: bool = True
    wildcards: str | os.PathLike[str] | None = None
    styles: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in self.values.items() if value is not None}
        probe = Request(prompt="", seed=self.seed, options=self.options, **given)
        checked = {name: value for name in given if (value := getattr(probe, name)) is not None}
        for name, value in [("values", checked), ("options", probe.options), ("seed", probe.seed)]:
            object.__setattr__(self, name, value)


def items(inputs: object, negatives: object, call: Call, model: Model) -> Iterator[Item]:
    """A numbered item for each picture: `num_images` adjacent ones for each request in `inputs`.

    Seeds are seed, seed + 1, ... over the whole call, or over the images of a request that has its own.
    Lists are checked whole before this returns; what is read lazily is checked as it comes.
    """
    found = _numbered(_requests(inputs, negatives), call, model)
    return iter(list(found)) if _in_memory(inputs) and _in_memory(negatives) else found


def complete(
    request: Request, model: Model, *, strict: bool = True, call: Call | None = None
) -> tuple[Request, tuple[str, ...]]:
    """`request` with a value for all that the model uses, and the parameters that it cannot use.

    Those are a ParameterError when `strict`; so are, always, values that the model does not allow. Styles and
    choices in the prompt are put into words first, from the files of `call`; see `text.wording`.
    """
    if not (request.options and wording.OPTIONS.intersection(request.options)):
        text = f"{request.prompt} {request.negative_prompt}"
        if "{" not in text and "__" not in text:
            return _completed(request, model, strict)
    if request.seed is None and model.seeds is not None:
        request = replace(request, seed=model.defaults.get("seed", random_seed(model.seeds)))
    call = call or Call()
    own = model.family.options
    said = wording.worded(request, wildcards=call.wildcards, styles_file=call.styles, own=own)
    try:
        return _completed(said, model, strict)
    except ParameterError as error:
        by_style = said.options.get("negative_template") == ""  # nothing of it was asked for itself
        if error.parameter != "negative_prompt" or not by_style:
            raise
    kept = {name: value for name, value in said.options.items() if name != "negative_template"}
    done, ignored = _completed(replace(said, negative_prompt=None, options=kept), model, strict)
    return done, (*ignored, "negative_prompt")


def _completed(request: Request, model: Model, strict: bool) -> tuple[Request, tuple[str, ...]]:
    family = model.family
    given = [name for name in _COMMON if getattr(request, name) is not None]
    options = {name: o.default for name, o in family.options.items() if o.default is not None}
    usable: frozenset[str] = frozenset()
    if given or request.options or options or model.defaults:  # there is something to look for
        usable = family.parameters | ({"prompt"} if model.seeds is None else {"prompt", "seed"})
        usable |= set(request.options) if model.passes_on else wording.OPTIONS
    ignored = tuple([name for name in [*given, *request.options] if name not in usable])
    if ignored and strict:
        can = ", ".join(sorted(usable - _KEPT))
        message = f"model {model.name!r} cannot use {ignored[0]}; it can use {can}"
        raise ParameterError(message, parameter=ignored[0])
    changed: dict[str, Any] = {name: None for name in ignored if name in _COMMON}
    if request.options:
        kept = with_attachments({n: v for n, v in request.options.items() if n not in ignored}, family)
        changed["options"] = Options(kept)
    defaults = {n: value for n, value in {**options, **model.defaults}.items() if n in usable}
    wanted = request.amended(model=model.name, **changed)
    _check_options(wanted.options, family)
    resolve = getattr(family, "resolve", None)
    seeded = model.seeds is not None
    done = (wanted if resolve is None else resolve(wanted)).completed(defaults, seeded=seeded)
    # A sampler's options may be the model's too, such as eta.
    if done.sampler is not None and done.sampler in samplers.names():
        of_sampler = samplers.options(done.sampler).items()
        own = {name: value for name, value in of_sampler if name in family.options}
        done = done.completed(own, seeded=seeded)
    _check_options(done.options, family)
    family.check(done)
    return done, ignored


def _check_options(options: Mapping[str, Any], family: Uses) -> None:
    for name in options:
        if (option := family.options.get(name)) is not None:
            _check(option, options[name])


def with_attachments(options: Mapping[str, Any], family: Uses) -> dict[str, Any]:
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
        own = merged.seed
        if own is None and model.seeds is not None and "seed" not in model.defaults:
            own = random_seed(model.seeds - call.num_images + 1)
        for copy in range(call.num_images):
            seed = _plus(own, copy) if call.seed is None else _plus(call.seed, index)
            single = merged if seed == merged.seed else merged.amended(seed=seed)
            done, ignored = complete(single, model, strict=call.strict, call=call)
            yield Item(index=index, request=done, ignored=ignored)
            index += 1


def _merged(request: Request, call: Call) -> Request:
    """The call's values where the request leaves things open; ParameterError where they differ."""
    if not call.values and not call.options and call.seed is None:
        return request
    said = {**request.options, **{n: v for n in _FIELDS if (v := getattr(request, n)) is not None}}
    for name, value in [*call.values.items(), *call.options.items(), ("seed", call.seed)]:
        if value is not None and said.get(name, value) != value:
            raise ParameterError(
                f"{name} is {shown(said[name])} in the request and {shown(value)} in the call; say it once",
                parameter=name,
            )
    options = Options({**request.options, **call.options}) if call.options else request.options
    return request.amended(**call.values, options=options)


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
        message = f"{option.name} is {shown(value)}; give {_KINDS[option.type]}"
        raise ParameterError(message, parameter=option.name)
    if option.choices and value not in option.choices:
        message = f"{option.name} is {shown(value)}; choose one of {', '.join(option.choices)}"
        raise ParameterError(message, parameter=option.name)


def is_single(inputs: object) -> bool:
    """Whether `inputs` stand for one picture rather than for a list of them."""
    if isinstance(inputs, Mapping):
        return isinstance(inputs.get("prompts", inputs.get("prompt")), (str, bytes))
    return isinstance(inputs, (str, bytes, Request))


def _in_memory(inputs: object) -> bool:
    """Whether all of `inputs` is there already, so that it can be checked whole before any work is done."""
    if isinstance(inputs, Mapping):
        return all(map(_in_memory, inputs.values()))
    if isinstance(inputs, (list, tuple)):
        return all(map(_in_memory, inputs))
    return isinstance(inputs, (str, bytes, int, float, Request)) or inputs is None


def _requests(inputs: object, negatives: object = None) -> Iterator[Request]:
    """The requests in `inputs`, in order; `negatives` is one negative prompt for all or one for each.

    ParameterError for what is no prompt, when its turn comes.
    """
    if isinstance(inputs, Mapping):
        for name in inputs:
            if name not in {*SINGULAR, *SINGULAR.values()}:
                message = f"inputs have the unknown entry {shown(name)}; {did_you_mean(str(name), SINGULAR)}"
                raise ParameterError(message, parameter="inputs")
    texts = _negatives(negatives)
    for request in _flat(inputs):
        text: Any = next(texts, _MISSING)
        if text is _MISSING:
            raise uneven("negative_prompts")
        if text is not None and request.negative_prompt is not None:
            message = "negative_prompts are given in the inputs and beside them; give them once"
            raise ParameterError(message, parameter="negative_prompts")
        yield request if text is None else replace(request, negative_prompt=text)
    if not isinstance(texts, repeat) and next(texts, _MISSING) is not _MISSING:
        raise uneven("negative_prompts")


def _negatives(given: object) -> Iterator[Any]:
    if given is None or isinstance(given, str):
        return repeat(given)
    if isinstance(given, bytes):
        return repeat(decoded(given))
    if isinstance(given, Iterable):
        return map(decoded, given)
    message = f"negative_prompts is {shown(given)}; give a text, or one for each prompt"
    raise ParameterError(message, parameter="negative_prompts")


def _flat(inputs: object) -> Iterator[Request]:
    """Single requests; a text is no list of letters."""
    if isinstance(inputs, Request):
        yield inputs
    elif isinstance(inputs, (str, bytes)):
        yield Request(prompt=inputs if isinstance(inputs, str) else decoded(inputs))
    elif isinstance(inputs, Mapping):
        yield from unstacked(inputs)
    elif hasattr(inputs, "as_numpy_iterator"):  # tf.data.Dataset, recognised without TensorFlow
        yield from _flat(inputs.as_numpy_iterator())
    elif isinstance(inputs, Iterable):
        for entry in inputs:
            if isinstance(entry, str):
                yield Request(prompt=entry)
            else:
                yield from _flat(entry)
    else:
        message = f"prompt is {shown(inputs)}; give a text, a Request, {{'prompts': ...}} or several of these"
        raise ParameterError(message, parameter="prompt")
