"""Our providers for services of others, pointed at a real server that speaks as those do."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from pictura import Failure, Picture, Preview, ProviderError, Request, Step, TextToImage

PROMPT = "a cat left of a pizza"


@pytest.fixture(scope="module")
def here(scenes):
    return scenes.generate(PROMPT, seed=7)


def opened(server, api, **settings):
    base = {"openai": "/v1#scenes", "huggingface": "/models/scenes", "a1111": "#scenes"}[api]
    more = {"timeout": (5, 60, 90), "api_key": "none-is-needed", **settings}
    return TextToImage.from_preset(f"{server.url}{base}", api=api, **more)


@pytest.mark.parametrize("api", ["openai", "huggingface", "a1111"])
def test_pictures_are_those_made_here(server, here, api):
    there = opened(server, api).generate(PROMPT, seed=7)
    assert np.array_equal(there, here) and there.request.seed == 7


@pytest.mark.parametrize("api", ["huggingface", "a1111"])
def test_parameters_arrive(server, scenes, api):
    wanted = {"seed": 3, "num_steps": 6, "guidance_scale": 2.5, "negative_prompts": "red", "size": (128, 128)}
    there = opened(server, api).generate("two stars", **wanted)
    here = scenes.generate("two stars", **wanted)
    assert np.array_equal(there, here)


def test_sampler_and_what_was_left_open_come_back_from_the_infotext(server, scenes):
    there = opened(server, "a1111").generate("two stars", seed=4, num_steps=5, sampler="heun")
    here = scenes.generate("two stars", seed=4, num_steps=5, sampler="heun")
    assert np.array_equal(there, here)
    assert there.request.guidance_scale == here.request.guidance_scale
    assert there.request.size == (128, 128) and there.request.sampler == "heun"


def test_options_pass_through_where_the_service_has_no_name_for_them(server, scenes):
    there = opened(server, "openai").generate("two stars", seed=4, num_inference_steps=5, guidance_scale=2.0,
                                              strict=False)  # fmt: skip
    assert there.ignored == ("guidance_scale",)
    here = scenes.generate("two stars", seed=4, num_steps=5)
    assert np.array_equal(there, here)


@pytest.mark.parametrize("api", ["openai", "huggingface", "a1111"])
def test_many_at_once_keep_their_seeds(server, scenes, api):
    prompts = ["a cat", "two stars", "a rocket"]
    remote = opened(server, api, concurrency=4)
    there = asyncio.run(remote.agenerate(prompts, seed=50, num_images=2))
    here = scenes.generate(prompts, seed=50, num_images=2)
    assert [picture.request.seed for picture in there] == [50, 51, 52, 53, 54, 55]
    assert np.array_equal(there, here)


def test_a_picture_forms_through_openais_stream(server, scenes):
    told = list(opened(server, "openai").stream(PROMPT, seed=7, num_inference_steps=60, previews=True))
    assert np.array_equal(told[-1], scenes.generate(PROMPT, seed=7, num_steps=60))
    previews = told[:-1]
    assert previews and all(isinstance(event, Preview) for event in previews)
    assert previews[0].image.size == (128, 128)


def test_a_picture_forms_through_the_progress(server, scenes, monkeypatch):
    monkeypatch.setattr("pictura.providers.automatic1111._EVERY", 0.05)
    told = list(opened(server, "a1111").stream(PROMPT, seed=9, num_steps=60, previews=True))
    steps = [event.step for event in told if isinstance(event, Step)]
    previews = [event for event in told if isinstance(event, Preview)]
    assert steps and steps == sorted(set(steps)) and previews and previews[-1].total == 60
    assert previews[-1].image.size == (128, 128)
    assert np.array_equal(told[-1], scenes.generate(PROMPT, seed=9, num_steps=60))


@pytest.mark.parametrize("api", ["openai", "huggingface", "a1111"])
def test_what_cannot_be_made_is_a_failure_beside_its_neighbours(server, api):
    remote = opened(server, api, max_retries=0)
    requests = [Request(prompt="a cat", seed=1), Request(prompt="a dog", seed=2, size=(64, 32))]
    told = [event for event in remote.stream(requests) if not isinstance(event, Step)]
    by_index = {event.index: event for event in told}
    assert isinstance(by_index[0], Picture) and isinstance(by_index[1], Failure)
    assert by_index[1].error.status == 400 and "128x128" in str(by_index[1].error)
    assert by_index[1].request.prompt == "a dog"


@pytest.mark.parametrize("api", ["openai", "a1111"])
def test_a_model_that_is_not_there(server, api):
    remote = opened(server, api)
    other = TextToImage.from_preset(remote.name.replace("#scenes", "#nonesuch"), api_key="none-is-needed")
    with pytest.raises(ProviderError, match="nonesuch"):
        other.generate("a cat")


def test_pictures_to_start_from_are_sent_along(conditioned):
    server, model, wanted = conditioned
    here = model.generate("a red cat", num_steps=4, **wanted)
    a1111 = opened(server, "a1111").generate("a red cat", num_steps=4, **wanted)
    assert np.array_equal(a1111, here)
    openai = opened(server, "openai").generate("a red cat", num_inference_steps=4, **wanted)
    assert np.array_equal(openai, here)
