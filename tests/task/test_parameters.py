"""Bad input: one sentence that names the parameter, at once, before anything is drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pictura import ParameterError, Request, TextToImage, samplers
from pictura.errors import PicturaError


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return TextToImage.from_preset("toy")


@pytest.fixture
def nothing_is_drawn(model: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **inputs: object) -> None:
        raise AssertionError("work began before the input was checked")

    monkeypatch.setattr(model.family, "evaluate", refuse)


BAD: list[tuple[str, Any, dict[str, Any]]] = [
    ("prompt", "x" * 100_000, {}),
    ("prompt", "half a pair \ud800", {}),
    ("prompt", "nul \0", {}),
    ("prompt", None, {}),
    ("prompt", 5, {}),
    ("prompt", b"\xff", {}),
    ("prompt", ["red", None], {}),
    ("prompt", ["red"] * 20 + [3], {}),
    ("prompt", {"prompts": ["red", 3]}, {}),
    ("prompt", {"prompts": None}, {}),
    ("prompt", {}, {}),
    ("prompt", [{"text": "red"}], {}),
    ("inputs", {"prompts": "red", "negatives": "blue"}, {}),
    ("negative_prompts", ["red", "blue"], {"negative_prompts": ["a"]}),
    ("negative_prompts", ["red"], {"negative_prompts": ["a", "b"]}),
    ("negative_prompts", "red", {"negative_prompts": 5}),
    ("negative_prompts", {"prompts": "red", "negative_prompts": "a"}, {"negative_prompts": "b"}),
    ("negative_prompt", "red", {"negative_prompts": "\0"}),
    ("negative_prompt", {"prompts": ["a", "b"], "negative_prompts": ["a"]}, {}),
    ("size", "red", {"size": (0, 0)}),
    ("size", "red", {"size": "63"}),
    ("size", "red", {"size": (10**6, 10**6)}),
    ("size", "red", {"size": (8, 8)}),  # well formed, but not the toy's to choose
    ("num_steps", "red", {"num_steps": 0}),
    ("num_steps", "red", {"num_steps": 1.5}),
    ("num_steps", "red", {"num_steps": True}),
    ("guidance_scale", "red", {"guidance_scale": math.nan}),
    ("guidance_scale", "red", {"guidance_scale": "much"}),
    ("seed", "red", {"seed": -1}),
    ("seed", "red", {"seed": 2**63}),
    ("seed", "red", {"seed": "x"}),
    ("seed", "red", {"seed": 1.5}),
    ("seed", ["red", "red"], {"seed": 2**63 - 1}),
    ("seed", Request(prompt="red", seed=1), {"seed": 2}),
    ("num_steps", [Request(prompt="red", num_steps=1)], {"num_steps": 2}),
    ("tint", Request(prompt="red", options={"tint": 0.5}), {"tint": 0.25}),
    ("sampler", "red", {"sampler": "heum"}),
    ("sampler", "red", {"sampler": 3}),
    ("schedule", "red", {"schedule": "karas"}),
    ("tint", "red", {"tint": "dark"}),
    ("tint", "red", {"tint": 2.0}),
    ("tint", "red", {"tint": math.inf}),
    ("gamma", "red", {"gamma": 2.0}),
    ("num_images", "red", {"num_images": 0}),
    ("num_images", "red", {"num_images": True}),
    ("num_images", "red", {"num_images": 10**9}),
    ("best_of", "red", {"best_of": 0}),
    ("batch_size", "red", {"batch_size": -1}),
]


@pytest.mark.usefixtures("nothing_is_drawn")
@pytest.mark.parametrize(("parameter", "inputs", "more"), BAD)
def test_bad_input(model: TextToImage, parameter: str, inputs: Any, more: dict[str, Any]) -> None:
    with pytest.raises(ParameterError) as caught:
        model.generate(inputs, **more)
    assert caught.value.parameter == parameter
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(ParameterError):
        model.stream(inputs, **more)  # at the call, not when the first event is asked for


def test_the_message_says_what_is_possible(model: TextToImage) -> None:
    with pytest.raises(ParameterError, match="did you mean 'heun'"):
        model.generate("red", sampler="heum")
    with pytest.raises(ParameterError, match=r"cannot use size; it can use guidance_scale, .*tint"):
        model.generate("red", size="8x8")


def test_not_strict_lists_what_was_ignored(model: TextToImage) -> None:
    plain = model.generate("red", seed=1)
    picture = model.generate("red", seed=1, size="8x8", gamma=2.0, strict=False)
    assert picture.ignored == ("size", "gamma") and plain.ignored == ()
    assert picture.request == plain.request
    with pytest.raises(ParameterError):  # a bad value is bad all the same
        model.generate("red", size="8by8", strict=False)


def test_options_reach_the_model_and_the_record(model: TextToImage) -> None:
    picture = model.generate("red", seed=1, tint=1)
    assert picture.request.options == {"tint": 1}
    assert picture.image.getextrema() != model.generate("red", seed=1).image.getextrema()
    assert model.generate("red", seed=1, tint=None).request.options == {"tint": 0.0}


def test_a_replay_outlives_the_defaults_of_options(
    model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = model.generate("red", seed=1)
    old = model.generate(replace(picture.request, options={}))  # as they were recorded once
    assert old.request == picture.request and np.array_equal(old, picture)
    changed = {"tint": replace(model.family.options["tint"], default=0.5)}
    monkeypatch.setattr(type(model.family), "options", changed)
    assert np.array_equal(model.generate(picture.request), picture)
    assert not np.array_equal(model.generate("red", seed=1), picture)


def test_the_sampler_s_own_options_are_recorded_where_the_model_has_them() -> None:
    scenes = TextToImage.from_preset("scenes")
    sampled = {name: scenes.generate("a cat", 1, sampler=name).request.options for name in samplers.names()}
    assert {name: options["eta"] for name, options in sampled.items() if "eta" in options} == {
        "ddim": 0.0, "dpmpp_2m_sde": 1.0, "dpmpp_sde": 1.0, "euler_ancestral": 1.0,
    }  # fmt: skip
    assert all(options.keys() <= {"eta", "guidance_low", "guidance_rescale"} for options in sampled.values())


def test_notes(model: TextToImage) -> None:
    assert model.generate("a zeppelin").notes == ("unknown word 'a'", "unknown word 'zeppelin'")
    assert model.generate("").notes == ("empty prompt: unconditional picture",)


def test_every_error_is_ours(model: TextToImage) -> None:
    for inputs in (object(), 3j, [object()], {"prompts": object()}, {"prompts": [[["red"]]]}, {1: 2}):
        with pytest.raises(PicturaError):
            model.generate(inputs)
