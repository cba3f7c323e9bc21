"""What `generate` may be given, as requests: one at a time, each read when it is asked for.

    a text                      {"prompts": text or texts, "negative_prompts": text or texts}
    a Request                   a list, a generator, a data set or a data loader of any of these

A row of a data set is a mapping with "prompts" or "prompt"; columns that are named like a field of `Request`
are used, all others are the data set's own. Batches, as of a data loader, are taken apart. Nothing that the
caller gave is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import repeat
from typing import Any

from pictura.errors import ParameterError, did_you_mean, shown
from pictura.request import Request

__all__ = ["in_memory", "is_single", "requests"]

_SINGULAR = {"prompts": "prompt", "negative_prompts": "negative_prompt"}
_COLUMNS = {field.name for field in fields(Request)} - {"model", "options"}
_MISSING = object()


def is_single(inputs: object) -> bool:
    """Whether `inputs` stand for one picture rather than for a list of them."""
    if isinstance(inputs, Mapping):
        return isinstance(inputs.get("prompts", inputs.get("prompt")), (str, bytes))
    return isinstance(inputs, (str, bytes, Request))


def in_memory(inputs: object) -> bool:
    """Whether all of `inputs` is there already, so that it can be checked whole before any work is done."""
    if isinstance(inputs, Mapping):
        return all(map(in_memory, inputs.values()))
    if isinstance(inputs, (list, tuple)):
        return all(map(in_memory, inputs))
    return isinstance(inputs, (str, bytes, int, float, Request)) or inputs is None


def requests(inputs: object, negatives: object = None) -> Iterator[Request]:
    """The requests in `inputs`, in order; `negatives` is one negative prompt for all or one for each.

    ParameterError for what is no prompt, when its turn comes.
    """
    if isinstance(inputs, Mapping):
        for name in inputs:
            if name not in {*_SINGULAR, *_SINGULAR.values()}:
                raise ParameterError(
                    f"inputs have the unknown entry {shown(name)}; {did_you_mean(str(name), _SINGULAR)}",
                    parameter="inputs",
                )
    texts = _negatives(negatives)
    for request in _flat(inputs):
        text = next(texts, _MISSING)
        if text is _MISSING:
            raise _uneven("negative_prompts")
        if text is not None and request.negative_prompt is not None:
            raise ParameterError(
                "negative_prompts are given in the inputs and beside them; give them once",
                parameter="negative_prompts",
            )
        yield request if text is None else replace(request, negative_prompt=_text(text))
    if not isinstance(texts, repeat) and next(texts, _MISSING) is not _MISSING:
        raise _uneven("negative_prompts")


def _negatives(given: object) -> Iterator[object]:
    if given is None or isinstance(given, (str, bytes)):
        return repeat(given)
    if isinstance(given, Iterable):
        return iter(given)
    raise ParameterError(
        f"negative_prompts is {shown(given)}; give a text, or one for each prompt",
        parameter="negative_prompts",
    )


def _flat(inputs: object) -> Iterator[Request]:
    """Single requests; a text is no list of letters."""
    if isinstance(inputs, Request):
        yield inputs
    elif isinstance(inputs, (str, bytes)):
        yield Request(prompt=_text(inputs))
    elif isinstance(inputs, Mapping):
        yield from _unstacked(inputs)
    elif hasattr(inputs, "as_numpy_iterator"):  # tf.data.Dataset, recognised without TensorFlow
        yield from _flat(inputs.as_numpy_iterator())
    elif isinstance(inputs, Iterable):
        for entry in inputs:
            yield from _flat(entry)
    else:
        raise ParameterError(
            f"prompt is {shown(inputs)}; give a text, a Request, {{'prompts': ...}} or several of these",
            parameter="prompt",
        )


def _unstacked(row: Mapping[Any, Any]) -> Iterator[Request]:
    """One row of a data set, or a batch of rows: then each column is a list (or one value for all)."""
    columns = {_SINGULAR.get(name, name): _plain(value) for name, value in row.items()}
    used = {name: value for name, value in columns.items() if name in _COLUMNS and value is not None}
    if "prompt" not in used:
        raise ParameterError(
            f"there are no 'prompts' among {shown(sorted(map(str, row)))}; name the column of texts so",
            parameter="prompt",
        )
    prompts = used["prompt"]
    if isinstance(prompts, (list, tuple)):
        for name, value in used.items():
            if _is_column(name, value) and len(value) != len(prompts):
                raise _uneven(name)
        for at in range(len(prompts)):
            one = {name: value[at] if _is_column(name, value) else value for name, value in used.items()}
            yield _request(one)
    else:
        yield _request(used)


def _request(values: Mapping[str, Any]) -> Request:
    texts = {"prompt", "negative_prompt"}
    return Request(**{name: _text(value) if name in texts else value for name, value in values.items()})


def _is_column(name: str, value: object) -> bool:
    """Whether `value` holds one entry a row: a size is (w, h) itself, a column of sizes is nested."""
    if not isinstance(value, (list, tuple)):
        return False
    return name != "size" or not value or not isinstance(value[0], int)


def _plain(value: Any) -> Any:
    """Tensors and arrays of a data loader as Python's own values."""
    return value.tolist() if hasattr(value, "tolist") else value


def _text(value: Any) -> Any:
    """TensorFlow's data sets give bytes. What is no text at all is left for `Request` to refuse."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise ParameterError(
                f"prompt is {shown(value)}, which is not UTF-8; give a text", parameter="prompt"
            ) from None
    return value


def _uneven(name: str) -> ParameterError:
    return ParameterError(
        f"there are not as many {name} as prompts; give one for all or one for each", parameter=name
    )
