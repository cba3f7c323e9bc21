"""Requests: what is refused, what is kept, and that JSON brings back the same value."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictura.errors import ParameterError, did_you_mean
from pictura.request import MAX_SEED, Options, Request, parse_size

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc", min_size=1, max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
requests = st.builds(
    Request,
    prompt=texts,
    negative_prompt=st.none() | texts,
    size=st.none() | st.tuples(st.integers(1, 8192), st.integers(1, 8192)),
    seed=st.none() | st.integers(0, MAX_SEED),
    num_steps=st.none() | st.integers(1, 1000),
    guidance_scale=st.none() | st.floats(-100, 100),
    options=st.dictionaries(st.text("abc", min_size=1, max_size=5), values, max_size=3),
)


@given(requests)
def test_json_brings_back_the_same_request(request_: Request) -> None:
    again = Request.from_json(request_.to_json())
    assert again == request_
    assert again.digest() == request_.digest()
    assert pickle.loads(pickle.dumps(request_)) == copy.deepcopy(request_) == request_
    assert hash(again) == hash(request_)


BAD = {
    "prompt": [None, 3, b"cat", "a" * 10_001, "cat\0dog", "cat\ud800"],
    "negative_prompt": [3, "\udfff", "\0"],
    "size": [
        0,
        64,
        "64",
        "0x64",
        "64x-1",
        (64,),
        (64, 64, 64),
        (64.0, 64),
        (True, 64),
        "10000x8",
        (0, 8),
        "1e3x8",
    ],
    "seed": [-1, 2**63, "x", 1.5, True, "7", float("nan")],
    "num_steps": [0, -1, 1001, 2.0, "ten", True],
    "guidance_scale": [float("nan"), float("inf"), "3", True, 1j, 10**400],
    "sampler": [3, "", "x" * 101],
    "schedule": [3, ""],
    "options": [3, [1], {1: 2}, {"": 1}],
    "model": [3, "\0"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_a_bad_value_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ParameterError) as caught:
        Request(**{"prompt": "a cat", name: value})
    assert caught.value.parameter == name
    message = str(caught.value)
    assert message.startswith(name) and "\n" not in message and len(message) < 200
    message.encode()


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, {"deep": [float("inf")]}, b"x"])
def test_options_are_json_values(value: object) -> None:
    with pytest.raises(ParameterError) as caught:
        Request(prompt="", options={"strength": value})
    assert caught.value.parameter == "strength"


def test_what_is_accepted_becomes_plain() -> None:
    request = Request(
        prompt="", size=" 64X48 ", seed=np.int64(0), guidance_scale=np.float32(2), num_steps=np.uint8(3)
    )
    assert request.size == (64, 48) and type(request.seed) is int and type(request.num_steps) is int
    assert request.guidance_scale == 2.0 and type(request.guidance_scale) is float
    assert parse_size([np.int32(5), 6]) == (5, 6)


def test_the_callers_options_are_copied() -> None:
    mine = {"list": [1, 2]}
    request = Request(prompt="", options=mine)
    mine["list"].append(3)
    assert request.options == {"list": (1, 2)} and isinstance(request.options, Options)
    with pytest.raises(TypeError):
        request.options["new"] = 1  # type: ignore[index]


def test_completed_fills_only_what_is_missing() -> None:
    request = Request(prompt="a cat", num_steps=3, options={"eta": 1.0})
    full = request.completed({"num_steps": 20, "size": [128, 128], "eta": 0.0, "churn": 2, "sampler": "heun"})
    assert (full.num_steps, full.size, full.sampler) == (3, (128, 128), "heun")
    assert full.options == {"eta": 1.0, "churn": 2}
    assert full.seed is not None and full.completed({}) == full
    assert request.completed({"seed": 0}).seed == 0
    assert request.completed({}).seed != request.completed({}).seed


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"prompt": 1}', "{}", '{"prompt": "x", "seeed": 1}', "[" * 10_000]
)
def test_foreign_json_is_one_error(text: str) -> None:
    with pytest.raises(ParameterError):
        Request.from_json(text)


def test_a_misspelt_field_is_named() -> None:
    with pytest.raises(ParameterError, match="did you mean 'seed'"):
        Request.from_json(json.dumps({"prompt": "x", "seeed": 1}))


def test_did_you_mean() -> None:
    assert did_you_mean("heum", ["heun", "ddim"]) == "did you mean 'heun'? (ddim, heun)"
    assert did_you_mean("zzz", ["heun", "ddim"]) == "choose one of: ddim, heun"
    assert did_you_mean("x", []) == "there are none to choose from"
