"""Whole pictures against the pipelines of diffusers: random models, the same seed, 8 steps, every sampler."""

from __future__ import annotations

import random
from functools import partial

import diffusers
import numpy as np
import pytest
import torch

from pictura.engine import Engine, solve
from pictura.errors import ParameterError
from pictura.schedulers.classes import BY_SAMPLER
from pipelines import KINDS, clip, close, family_of, pipeline, request_for

CACHE = {}
FLOWS = ("sd3", "flux-dev", "flux-schnell")


def pair(kind, seed):
    if (kind, seed) not in CACHE:
        pipe = pipeline(kind, seed)
        CACHE[kind, seed] = pipe, family_of(pipe, kind), pipe.scheduler
    pipe, ours, scheduler = CACHE[kind, seed]
    pipe.scheduler = scheduler
    return pipe, ours


def drawn(ours, prompt="a red cat on a tree", **values):
    request = request_for(ours, prompt, **values)
    ours.check(request)
    return solve(ours, ours.run(request, lambda level, x0: None)) / 2 + 0.5


def theirs(pipe, prompt="a red cat on a tree", *, seed=7, steps=8, size=(48, 32), **values):
    generator = torch.Generator().manual_seed(seed)
    if isinstance(pipe, diffusers.StableDiffusion3Pipeline):  # which draws a step's noise from nowhere
        if "generator" in type(pipe.scheduler).step.__code__.co_varnames:
            pipe.scheduler.step = partial(type(pipe.scheduler).step, pipe.scheduler, generator=generator)
    result = pipe(
        prompt,
        num_inference_steps=steps,
        width=size[0],
        height=size[1],
        generator=generator,
        output_type="pt",
        **values,
    )
    return result.images


def guidance(kind):
    if kind == "flux-dev":
        return {"guidance_scale": 2.5}, {"guidance_scale": 2.5}
    if kind == "flux-schnell":
        return {}, {"guidance_scale": 0.0, "max_sequence_length": 256}
    both = {"guidance_scale": 4.0, "negative_prompt": "two blue dogs"}
    return both, both


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_s_own_scheduler(kind, seed):
    pipe, ours = pair(kind, seed)
    mine, other = guidance(kind)
    close(drawn(ours, seed=7, num_steps=8, size=(48, 32), **mine), theirs(pipe, **other))


@pytest.mark.parametrize("sampler", [name for name in BY_SAMPLER if name != "dpmpp_sde"])
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_every_sampler_of_diffusion_models(kind, sampler):
    """As people do it: the scheduler's class from the configuration of the pipeline's own."""
    seed = sorted(BY_SAMPLER).index(sampler) % 3
    pipe, ours = pair(kind, seed)
    config = {**ours.scheduler, "clip_sample": False, "skip_prk_steps": True}
    if sampler == "dpmpp_2m_sde":
        config["algorithm_type"] = "sde-dpmsolver++"
    pipe.scheduler = getattr(diffusers, BY_SAMPLER[sampler]).from_config(config)
    mine, other = guidance(kind)
    close(drawn(ours, seed=7, num_steps=8, size=(48, 32), sampler=sampler, **mine), theirs(pipe, **other))


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "lcm"])
@pytest.mark.parametrize("kind", ["sd3"])
def test_samplers_that_diffusers_has_for_flows(kind, sampler):
    pipe, ours = pair(kind, 1)
    shift = ours.scheduler["shift"]
    if sampler in ("heun", "lcm"):
        name = "FlowMatchHeunDiscreteScheduler" if sampler == "heun" else "FlowMatchEulerDiscreteScheduler"
        more = {"stochastic_sampling": True} if sampler == "lcm" else {}
        pipe.scheduler = getattr(diffusers, name)(shift=shift, **more)
    else:
        given = {"use_flow_sigmas": True, "flow_shift": shift, "prediction_type": "flow_prediction"}
        given |= {"algorithm_type": "sde-dpmsolver++"} if sampler.endswith("sde") else {}
        pipe.scheduler = getattr(diffusers, BY_SAMPLER[sampler])(**given)
    mine, other = guidance(kind)
    close(drawn(ours, seed=7, num_steps=8, size=(48, 32), sampler=sampler, **mine), theirs(pipe, **other))


@pytest.mark.parametrize("schedule", ["karras", "exponential"])
def test_schedules(schedule):
    pipe, ours = pair("sd1", 0)
    config = {**ours.scheduler, f"use_{schedule}_sigmas": True}
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
    mine = drawn(ours, seed=7, num_steps=8, size=(48, 32), sampler="dpmpp_2m", schedule=schedule)
    close(mine, theirs(pipe))


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_without_a_negative_prompt(kind, scale):
    """XL takes zeros where its folder says so, the others the empty text; up to 1 there is no guidance."""
    pipe, ours = pair(kind, 2)
    close(
        drawn(ours, seed=3, num_steps=3, size=(32, 48), guidance_scale=scale),
        theirs(pipe, seed=3, steps=3, size=(32, 48), guidance_scale=scale),
    )


def test_xl_is_told_sizes_and_keeps_contrast():
    pipe, ours = pair("sdxl", 1)
    mine = {"original_size": "64x96", "crop": "5,3", "target_size": "40x50", "guidance_rescale": 0.6}
    other = {"original_size": (96, 64), "crops_coords_top_left": (3, 5), "target_size": (50, 40)}
    for prompt in (None, ""):
        close(
            drawn(
                ours,
                seed=1,
                num_steps=3,
                size=(48, 32),
                guidance_scale=4.0,
                negative_prompt=prompt,
                options=mine,
            ),
            theirs(
                pipe,
                seed=1,
                steps=3,
                guidance_scale=4.0,
                negative_prompt=prompt,
                guidance_rescale=0.6,
                **other,
            ),
        )


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd3"])
def test_guidance_within_an_interval(kind):
    """Theirs moves away by nothing outside the interval; ours does not even ask there."""
    pipe, ours = pair(kind, 1)
    plan = ours.plan(request_for(ours, num_steps=8, size=(48, 32)))
    ratios = [level.ratio for level in plan.levels]
    options = {"guidance_low": ratios[6], "guidance_high": ratios[2]}

    def scaled(pipe, step, time, kept):
        pipe._guidance_scale = 4.0 if 2 <= step + 1 < 6 else 1 + 1e-9
        return kept

    mine = drawn(ours, seed=7, num_steps=8, size=(48, 32), guidance_scale=4.0, options=options)
    close(mine, theirs(pipe, guidance_scale=1 + 1e-9, callback_on_step_end=scaled))
    asked = {}
    for given in ({}, options):
        engine = Engine(ours)
        request = request_for(ours, seed=7, num_steps=8, size=(48, 32), guidance_scale=4.0, options=given)
        ticket = engine.add(ours.run(request, lambda level, x0: None))
        engine.run()
        asked[len(given)] = ticket.evaluations
    assert asked[0] - asked[2] == 4


@pytest.mark.parametrize("kind", ["sdxl", "sd3"])
def test_clip_skip(kind):
    pipe, ours = pair(kind, 0)
    mine = drawn(ours, seed=1, num_steps=2, size=(32, 32), options={"clip_skip": 1})
    scale = {"guidance_scale": 5.0 if kind == "sdxl" else 7.0}
    close(mine, theirs(pipe, seed=1, steps=2, size=(32, 32), clip_skip=1, **scale))


@pytest.mark.parametrize("syntax", ["plain", "a1111"])
def test_a_text_encoder_of_fewer_positions(syntax):
    """It is asked for as many tokens as it has positions, whatever they are in published models."""
    pipe = pipeline("sd1", 4)
    width = pipe.text_encoder.config.hidden_size
    pipe.text_encoder = clip(random.Random(4), False, hidden_size=width, max_position_embeddings=20)
    pipe.tokenizer.model_max_length = 20
    ours = family_of(pipe, "sd1")
    mine = {"guidance_scale": 4.0, "options": {"prompt_syntax": syntax}}
    close(drawn(ours, seed=7, num_steps=8, size=(48, 32), **mine), theirs(pipe, guidance_scale=4.0))


def test_clip_skip_of_the_first_versions_takes_the_final_norm():
    """Where diffusers looks for a name that transformers has given up."""
    _, ours = pair("sd1", 0)
    program = ours.read(request_for(ours, options={"clip_skip": 1}), "a cat")
    (ask,) = next(program)
    with torch.no_grad():
        with pytest.raises(StopIteration) as done:
            program.send((ours.evaluate(ask.net, ask.variant, **ask.inputs),))
        text = ours.parts["text_encoder"]
        wanted = text.normed(text(ask.inputs["ids"]).hidden[-2])
    assert torch.equal(done.value.value.context, wanted)


def test_flux_with_true_guidance():
    pipe, ours = pair("flux-dev", 1)
    options = {"true_guidance_scale": 3.0, "max_sequence_length": 40}
    mine = drawn(
        ours, seed=5, num_steps=3, size=(48, 32), guidance_scale=2.0, negative_prompt="blue", options=options
    )
    other = {
        "guidance_scale": 2.0,
        "negative_prompt": "blue",
        "true_cfg_scale": 3.0,
        "max_sequence_length": 40,
    }
    close(mine, theirs(pipe, seed=5, steps=3, **other))


def test_a_latent_consistency_model_is_told_its_guidance():
    import random

    from pipelines import redrawn, unet

    pipe, _ = pair("sd1", 0)
    body = unet(random.Random(5), pipe.text_encoder.config.hidden_size, time_cond_proj_dim=16)
    distilled = diffusers.StableDiffusionPipeline(
        **{**pipe.components, "unet": redrawn(body, random.Random(6)), "scheduler": diffusers.LCMScheduler()},
        requires_safety_checker=False,
    )
    distilled.set_progress_bar_config(disable=True)
    ours = family_of(distilled, "sd1")
    mine = drawn(ours, seed=7, num_steps=4, size=(48, 32), guidance_scale=8.5)
    close(mine, theirs(distilled, steps=4, guidance_scale=8.5))


def test_latents_with_a_scale_for_each_channel():
    pipe, _ = pair("sdxl", 0)
    kept = pipe.vae.config
    told = {"latents_mean": [-1.6, 1.1, -0.3, 2.5], "latents_std": [8.4, 5.9, 5.3, 6.5]}
    pipe.vae.register_to_config(**told, scaling_factor=0.5)
    try:
        ours = family_of(pipe, "sdxl")
        mine = drawn(ours, seed=2, num_steps=2, size=(32, 32), guidance_scale=3.0)
        close(mine, theirs(pipe, seed=2, steps=2, size=(32, 32), guidance_scale=3.0))
    finally:
        pipe.vae.register_to_config(**{**kept, "latents_mean": None, "latents_std": None})


def test_the_first_noise_is_theirs():
    pipe, ours = pair("sd1", 0)
    request = request_for(ours, seed=11, num_steps=2, size=(48, 32))
    program, asked = ours.run(request, lambda level, x0: None), []
    asks = next(program)
    with torch.no_grad():
        while not asked:
            asks = program.send(tuple(ours.evaluate(a.net, a.variant, **a.inputs) for a in asks))
            asked = [ask.inputs["x"] for ask in asks if ask.net == "unet"]
    noise = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(11))
    level = ours.plan(request).levels[0]
    assert any(torch.equal(x, scale * noise) for x in asked for scale in (1.0, level.sigma))


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_gives_the_bits_of_the_oracle(kind):
    _, ours = pair(kind, 0)
    assert ours.rows > 1
    requests = [request_for(ours, f"{word} cat", seed=i, num_steps=2 + i) for i, word in enumerate("abc")]
    engine = Engine(ours, rows=ours.rows)
    tickets = [engine.add(ours.run(request, lambda level, x0: None)) for request in requests]
    engine.run()
    for ticket, request in zip(tickets, requests, strict=True):
        assert torch.equal(ticket.result, solve(ours, ours.run(request, lambda level, x0: None)))


@pytest.mark.parametrize(
    ("kind", "values", "parameter"),
    [
        ("sd1", {"size": (33, 32)}, "size"),
        ("sd3", {"size": (30, 32)}, "size"),
        ("sd3", {"size": (1024, 32)}, "size"),
        ("sd1", {"negative_prompt": "dog", "guidance_scale": 1.0}, "negative_prompt"),
        ("flux-dev", {"negative_prompt": "dog"}, "negative_prompt"),
        ("flux-schnell", {"guidance_scale": 3.0}, "guidance_scale"),
        ("sd1", {"options": {"clip_skip": 9}}, "clip_skip"),
        ("sd1", {"options": {"crop": "1,1"}}, "crop"),
        ("sdxl", {"options": {"crop": "left"}}, "crop"),
        ("sd3", {"options": {"max_sequence_length": 700}}, "max_sequence_length"),
        ("sd1", {"options": {"eta": 0.5}, "sampler": "heun"}, "eta"),
        ("sd1", {"options": {"guidance_rescale": 2.0}}, "guidance_rescale"),
        ("sd1", {"options": {"guidance_low": -1.0}}, "guidance_low"),
        ("flux-dev", {"options": {"guidance_low": 2.0, "guidance_high": 2.0}}, "guidance_low"),
        ("sd1", {"schedule": "shift:3"}, "schedule"),
    ],
)
def test_what_a_model_cannot_do_is_told_before_any_work(kind, values, parameter):
    _, ours = pair(kind, 0)
    with pytest.raises(ParameterError) as caught:
        ours.check(request_for(ours, **values))
    assert caught.value.parameter == parameter


def test_previews_are_rough_pictures():
    _, ours = pair("sdxl", 0)
    told = []
    request = request_for(ours, seed=1, num_steps=3, size=(48, 32))
    solve(ours, ours.run(request, lambda level, x0: told.append(x0)))
    assert len(told) == ours.evaluations(request) == 3
    assert all(x0.shape == (1, 3, 16, 24) and np.isfinite(x0.numpy()).all() for x0 in told)
