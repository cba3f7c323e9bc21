"""Pipelines that only diffusers knows, through our interface: the same pictures, watched and replayed."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import islice

import diffusers
import numpy as np
import pytest
import torch
import transformers

from pictura import TextToImage
from pictura.cli import main
from pictura.errors import CheckpointError, ParameterError, PresetError, TrainingError
from pictura.picture import Failure, Picture, Preview, Step
from pipelines import redrawn, t5, t5_tokenizer, vae

SAID = {"num_steps": 3, "size": "32x32"}
PLAIN = {"use_resolution_binning": False}  # PixArt would round the size to one of its own


def pixart(rng):
    """Of 2023; tells of its steps the old way."""
    encoder = t5(rng)
    body = diffusers.PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=3,
        caption_channels=encoder.config.d_model,
        cross_attention_dim=24,
        use_additional_conditions=False,
    )
    return diffusers.PixArtAlphaPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=encoder,
        vae=vae(rng, 4),
        transformer=redrawn(body, rng),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def aura_flow(rng):
    """Of 2024, a flow with a multilingual encoder."""
    config = transformers.UMT5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    body = diffusers.AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=16,
        out_channels=4,
        pos_embed_max_size=256,
    )
    return diffusers.AuraFlowPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=redrawn(transformers.UMT5EncoderModel(config), rng),
        tokenizer=t5_tokenizer(),
        transformer=redrawn(body, rng),
        vae=vae(rng, 4),
    )


def chroma(rng):
    """Of 2025, with packed latents."""
    encoder = t5(rng)
    body = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=encoder.config.d_model,
        axes_dims_rope=(4, 4, 8),
        approximator_hidden_dim=32,
        approximator_layers=1,
        approximator_num_channels=16,
    )
    return diffusers.ChromaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=encoder,
        tokenizer=t5_tokenizer(),
        transformer=redrawn(body, rng),
        vae=vae(rng, 4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1),
    )


@pytest.fixture(scope="module", params=[pixart, aura_flow, chroma], ids=lambda make: make.__name__)
def folder(request, tmp_path_factory):
    where = tmp_path_factory.mktemp("bridge") / request.param.__name__
    pipeline = request.param(random.Random(1))
    pipeline.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def model(folder):
    return TextToImage.from_preset(folder, dtype="float32")


@pytest.fixture(scope="module")
def said(model):
    return SAID | {name: value for name, value in PLAIN.items() if name in model.family.options}


@pytest.fixture(scope="module")
def aura(tmp_path_factory):
    where = tmp_path_factory.mktemp("bridge") / "aura"
    aura_flow(random.Random(2)).save_pretrained(where)
    return where


def pixels(picture):
    return np.asarray(picture)


def test_the_picture_is_that_of_diffusers(folder, model, said):
    theirs = diffusers.DiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    for seed, negative in ((3, None), (4, "a dog")):
        ours = model.generate("a cat", seed=seed, negative_prompts=negative, guidance_scale=3.0, **said)
        rng = torch.Generator().manual_seed(seed)
        more = {name: said[name] for name in PLAIN if name in said}
        more |= {} if negative is None else {"negative_prompt": negative}
        expected = theirs(
            prompt="a cat",
            num_inference_steps=3,
            width=32,
            height=32,
            guidance_scale=3.0,
            generator=rng,
            **more,
        )
        np.testing.assert_array_equal(pixels(ours), np.asarray(expected.images[0]))


def test_alone_and_together_it_is_the_same(model, said):
    alone = [model.generate(prompt, seed=seed, **said) for seed, prompt in enumerate(["a cat", "a dog"])]
    together = model.generate(["a cat", "a dog"], seed=0, **said)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(pixels(one), pixels(other))
    assert not np.array_equal(pixels(together[0]), pixels(together[1]))


def test_steps_and_previews_come_on_the_way(model, said):
    events = list(model.stream("a cat", seed=1, previews=True, **said))
    steps = [(event.step, event.total) for event in events if isinstance(event, Step)]
    assert steps == [(1, 3), (2, 3), (3, 3)] and isinstance(events[-1], Picture)
    assert sum(isinstance(event, Preview) for event in events) == 3


def test_leaving_early_ends_the_work(model, said):
    import threading

    events = model.stream(["a cat", "a dog"], seed=1, **(said | {"num_steps": 50}))
    assert len(list(islice(events, 2))) == 2
    events.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "pipeline"]
    assert model.generate("a cat", seed=1, **said).request.num_steps == 3


def test_honest_parameters(model, said):
    with pytest.raises(ParameterError, match="cannot use sampler"):
        model.generate("a cat", sampler="euler", **said)
    with pytest.raises(ParameterError, match="colour"):
        model.generate("a cat", colour="red", **said)
    picture = model.generate("a cat", seed=1, strict=False, sampler="euler", **said)
    assert picture.ignored == ("sampler",)
    assert picture.request.guidance_scale == model.family.defaults()["guidance_scale"]
    assert picture.model_digest and len(picture.model_digest) == 64


def test_what_a_pipeline_refuses_is_one_failure(aura):
    model = TextToImage.from_preset(aura)
    requests = [{"prompts": "a cat", "size": (33, 32)}, {"prompts": "a dog", "size": (32, 32)}]
    failed, drawn = (
        [event for event in model.stream(requests, num_steps=1, seed=1) if isinstance(event, kind)]
        for kind in (Failure, Picture)
    )
    assert [event.index for event in failed] == [0] and [event.index for event in drawn] == [1]
    assert isinstance(failed[0].error, ParameterError) and "divisible" in str(failed[0].error)


def test_the_command_line_draws_and_replays(aura, tmp_path, capsys):
    path = tmp_path / "cat.png"
    said = ["generate", "a cat", "--model", str(aura), "--steps", "2", "--size", "32x32", "--seed", "5"]
    assert main([*said, "--dtype", "float32", "--out", str(path)]) == 0
    request = Picture.open(path).request
    assert request.model == str(aura) and request.num_steps == 2
    assert main(["replay", str(path), "--check"]) == 0


def test_it_is_neither_trained_nor_saved_here(aura, tmp_path):
    model = TextToImage.from_preset(aura)
    with pytest.raises(TrainingError, match="diffusers"):
        model.fit([{"images": pixels(model.generate("a cat", **SAID)), "prompts": "a cat"}])
    with pytest.raises(ParameterError, match="save_pretrained"):
        model.save_to_preset(tmp_path / "copy")
    with pytest.raises(ParameterError, match="needs its weights"):
        TextToImage.from_preset(aura, load_weights=False)
    assert "AuraFlowTransformer2DModel" in _summary(model)


def _summary(model):
    lines = []
    model.summary(lines.append)
    return "\n".join(lines)


def test_unknown_and_unsafe_folders_are_refused(aura, tmp_path):
    import json
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(aura, copy)
    index = json.loads((copy / "model_index.json").read_text())
    for name in ("NoSuchPipeline", "AutoencoderKL", "os.system", "AudioLDM2Pipeline"):
        (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": name}))
        with pytest.raises((PresetError, CheckpointError)):
            TextToImage.from_preset(copy)
    (copy / "model_index.json").write_text(json.dumps(index))
    weights = next((copy / "transformer").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match="diffusers cannot load"):
        TextToImage.from_preset(copy)


def test_without_diffusers_it_says_what_to_install(aura):
    program = f"""
import sys
sys.modules["diffusers"] = None
from pictura import TextToImage
from pictura.errors import PresetError
try:
    TextToImage.from_preset({str(aura)!r})
except PresetError as error:
    assert "pip install 'pictura[diffusers]'" in str(error)
else:
    raise SystemExit("it loaded")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
