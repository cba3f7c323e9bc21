"""ControlNets, T2I-Adapters and IP-Adapters against diffusers' pipelines with the same random weights."""

from __future__ import annotations

import random
from functools import partial

import diffusers
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from oracle import off
from pictura.attachments import attached
from pictura.engine import solve
from pictura.errors import CheckpointError, ParameterError, PresetError
from pictura.nn.controlnet import ControlNet
from pictura.nn.ip_adapter import IPAdapter
from pictura.nn.t2i_adapter import T2IAdapter
from pipelines import family_of, pipeline, redrawn, request_for
from steering import control, ip_adapter

SIZE = (48, 32)
SAID = {"num_steps": 4, "seed": 3, "size": SIZE, "guidance_scale": 3.0, "sampler": "euler"}
CALL = {"num_inference_steps": 4, "width": 48, "height": 32, "guidance_scale": 3.0, "output_type": "np"}
PROMPT = "a red cat on a tree"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))


def quiet(level, x0):
    pass


def drawing(seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))


def ours_with(family, **options):
    kept = {
        name: attached(value, name, kind) if (kind := family.options[name].attach) else value
        for name, value in options.items()
    }
    request = request_for(family, PROMPT, **SAID, options=kept)
    family.check(request)
    return solve(family, family.run(request, quiet))


def theirs_with(pipe, **more):
    pipe.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(3)
    pixels = torch.from_numpy(np.asarray(pipe(PROMPT, generator=rng, **CALL, **more).images))
    return pixels.permute(0, 3, 1, 2) * 2 - 1


close = partial(off, least=1e-3)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def model(request):
    pipe = pipeline(request.param, 1)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    return request.param, pipe, family_of(pipe, request.param)


def parts(pipe, *left_out):
    return {name: part for name, part in pipe.components.items() if name not in left_out}


def test_controlnets(model, tmp_path):
    kind, pipe, family = model
    first, second = (control(pipe, tmp_path / name, seed) for seed, name in enumerate("ab"))
    name = "StableDiffusionXLControlNetPipeline" if kind == "sdxl" else "StableDiffusionControlNetPipeline"
    make = getattr(diffusers, name)
    one = {"model": str(tmp_path / "a"), "image": drawing(1), "weight": 0.8}
    two = {"model": str(tmp_path / "b"), "image": drawing(2), "weight": 0.5, "start": 0.25, "end": 0.75}
    more = {"requires_safety_checker": False} if kind == "sd1" else {"add_watermarker": False}
    theirs = make(**parts(pipe, "image_encoder"), controlnet=first, **more)
    expected = theirs_with(theirs, image=drawing(1), controlnet_conditioning_scale=0.8)
    assert close(ours_with(family, control=[one]), expected) < 1e-4
    assert close(ours_with(family), expected) > 1e-2, "the control changes nothing"
    theirs = make(**parts(pipe, "image_encoder"), controlnet=[first, second], **more)
    expected = theirs_with(
        theirs, image=[drawing(1), drawing(2)], controlnet_conditioning_scale=[0.8, 0.5],
        control_guidance_start=[0.0, 0.25], control_guidance_end=[1.0, 0.75],
    )  # fmt: skip
    assert close(ours_with(family, control=[one, two]), expected) < 1e-4


def test_t2i_adapters(model, tmp_path):
    kind, pipe, family = model
    widths = list(pipe.unet.config.block_out_channels)
    shape = {"downscale_factor": 2}
    if kind == "sdxl":
        shape = {"downscale_factor": 4, "adapter_type": "full_adapter_xl"}
    adapter = diffusers.T2IAdapter(channels=widths, num_res_blocks=1, **shape)
    redrawn(adapter, random.Random(1)).save_pretrained(tmp_path / "a")
    name = "StableDiffusionXLAdapterPipeline" if kind == "sdxl" else "StableDiffusionAdapterPipeline"
    more = {"requires_safety_checker": False} if kind == "sd1" else {}
    theirs = getattr(diffusers, name)(**parts(pipe, "image_encoder"), adapter=adapter, **more)
    one = {"model": str(tmp_path / "a"), "image": drawing(1), "weight": 0.7}
    expected = theirs_with(theirs, image=drawing(1), adapter_conditioning_scale=0.7)
    assert close(ours_with(family, control=[one]), expected) < 1e-4
    assert close(ours_with(family), expected) > 1e-2, "the adapter changes nothing"


@pytest.mark.parametrize("way", ["plain", "plus", "full"])
def test_ip_adapters(way, tmp_path):
    for kind in ("sd1", "sdxl"):
        folder = tmp_path / kind
        folder.mkdir()
        pipe = pipeline(kind, 2)
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        family = family_of(pipe, kind)
        context = pipe.unet.config.cross_attention_dim
        encoder, state = ip_adapter(pipe, folder, random.Random(1), context, way)
        extractor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)
        pipe.register_modules(image_encoder=encoder, feature_extractor=extractor)
        plain = theirs_with(pipe)
        pipe.load_ip_adapter(state, subfolder="", weight_name="")
        pipe.set_ip_adapter_scale(0.6)
        expected = theirs_with(pipe, ip_adapter_image=drawing(4))
        reference = {"model": str(folder / "style.safetensors"), "image": drawing(4), "weight": 0.6}
        ours = ours_with(family, reference=reference)
        assert close(ours, expected) < 1e-3, kind  # the picture is resized by another library
        assert close(plain, expected) > 1e-2, "the picture changes nothing"


@pytest.mark.parametrize("way", ["plain", "plus", "full"])
def test_projections_of_ip_adapters(way, tmp_path):
    """Tokens, from numbers that no picture's preparation has touched, by diffusers' own conversion."""
    pipe = pipeline("sd1", 1)
    _, state = ip_adapter(pipe, tmp_path, random.Random(1), 24, way)
    theirs = pipe.unet._convert_ip_adapter_image_proj_to_diffusers(state["image_proj"]).eval()
    shapes = {f"image_proj.{name}": tuple(tensor.shape) for name, tensor in state["image_proj"].items()}
    ours = IPAdapter(shapes)
    ours.image_proj.load_state_dict(state["image_proj"], strict=True)
    seen = torch.randn(2, 12) if way == "plain" else torch.randn(2, 5, 16)
    assert ours.patches == (way != "plain") and ours.embedded == seen.shape[-1]
    with torch.no_grad():
        assert close(ours.image_proj(seen), theirs(seen)) < 1e-5


def test_wrong_ip_adapters_are_refused(tmp_path):
    pipe = pipeline("sd1", 2)
    family, context = family_of(pipe, "sd1"), pipe.unet.config.cross_attention_dim
    _, state = ip_adapter(pipe, tmp_path, random.Random(1), context, "plus")
    (tmp_path / "xl").mkdir()
    ip_adapter(pipeline("sdxl", 2), tmp_path / "xl", random.Random(1), context + 8)
    good = {f"{part}.{name}": tensor for part, tensors in state.items() for name, tensor in tensors.items()}
    latents, keys = good["image_proj.latents"], good["ip_adapter.1.to_k_ip.weight"]
    wrong = {
        "face": ({"image_proj.perceiver_resampler.proj_in.weight": latents}, "is no IP-Adapter that"),
        "flat": (good | {"image_proj.latents": latents[0]}, "shapes of the IP-Adapter do not fit"),
        "heads": (good | {"image_proj.layers.0.0.to_q.weight": torch.ones(12, 20)}, "shapes of the IP"),
        "names": (good | {"ip_adapter.x.to_k_ip.weight": keys}, "shapes of the IP-Adapter do not fit"),
        "more": (good | {"image_proj.more": latents}, "image_proj.more"),
        "fewer": ({n: t for n, t in good.items() if "ip_adapter.1." not in n}, "is for another model"),
        "width": (good | {"image_proj.proj_in.weight": torch.ones(20, 17)}, "another picture encoder: 17"),
    }
    for name, (tensors, said) in wrong.items():
        save_file({n: t.clone() for n, t in tensors.items()}, tmp_path / f"{name}.safetensors")
        reference = {"model": str(tmp_path / f"{name}.safetensors"), "image": drawing()}
        with pytest.raises(CheckpointError, match=said):
            ours_with(family, reference=reference)
            raise AssertionError(name)
    with pytest.raises(CheckpointError, match="reference 'style.safetensors' is for another model"):
        ours_with(family, reference={"model": str(tmp_path / "xl/style.safetensors"), "image": drawing()})


@pytest.mark.parametrize("kind", ["full_adapter", "full_adapter_xl", "light_adapter"])
def test_each_kind_of_adapter(kind):
    rng = random.Random(kind)
    shape = {"channels": [8, 16, 24, 24], "downscale_factor": 2, "adapter_type": kind}
    theirs = redrawn(diffusers.T2IAdapter(**shape), rng)
    ours = T2IAdapter(dict(theirs.config))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    hint = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        for one, other in zip(ours(hint), theirs(hint), strict=True):
            assert close(one, other) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_random_controlnets(seed):
    for kind in ("sd1", "sdxl"):
        pipe, rng = pipeline(kind, seed), random.Random(seed)
        theirs = diffusers.ControlNetModel.from_unet(
            pipe.unet,
            conditioning_embedding_out_channels=(8, 16),
            controlnet_conditioning_channel_order=rng.choice(["rgb", "bgr"]),
        )
        redrawn(theirs, rng)
        ours = ControlNet(dict(theirs.config))
        ours.load_state_dict(theirs.state_dict(), strict=True)
        context = pipe.unet.config.cross_attention_dim
        x, time, text = torch.randn(2, 4, 8, 12), torch.tensor([3.0, 77.0]), torch.randn(2, 5, context)
        hint, said, added = torch.rand(2, 3, 16, 24), {}, None
        if kind == "sdxl":
            pooled = torch.randn(2, pipe.text_encoder_2.config.projection_dim)
            ids = torch.tensor([[8.0, 9, 0, 0, 8, 9]] * 2)
            said = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}
            added = ours.sizes(pooled, ids)
        with torch.no_grad():
            skips, middle = theirs(x, time, text, hint, return_dict=False, **said)
            found, centre = ours(x, time, text, hint, added)
            guided = ours(x, time, text, hint, added, condition=torch.ones(2, 3))
        assert torch.equal(guided[1], centre), "a distilled model's guidance is not for it"
        for one, other in zip([*found, centre], [*skips, middle], strict=True):
            assert close(one, other) < 1e-5


def test_wrong_ones_are_refused(tmp_path):
    pipe = pipeline("sd1", 1)
    family = family_of(pipe, "sd1")
    control(pipe, tmp_path / "good", 0)
    control(pipeline("sdxl", 1), tmp_path / "xl", 0)
    pipe.vae.save_pretrained(tmp_path / "vae")
    good = {"model": str(tmp_path / "good"), "image": drawing()}
    assert ours_with(family, control=[good]) is not None
    for wrong, error in (
        ({"model": str(tmp_path / "nothing")}, PresetError),
        ({"model": str(tmp_path / "vae")}, PresetError),
        ({"model": str(tmp_path / "xl")}, CheckpointError),
        ({"weight": "much"}, ParameterError),
        ({"start": 2}, ParameterError),
        ({"colour": 1}, ParameterError),
        ({"image": "no such file.png"}, ParameterError),
        ({"sha256": "0" * 64}, ParameterError),
    ):
        with pytest.raises(error):
            ours_with(family, control=[{**good, **wrong}])
    with pytest.raises(ParameterError, match="tiles"):
        ours_with(family, control=[good], tile=True)
    with pytest.raises(ParameterError, match="leave out"):
        ours_with(family, control=[good], deep_cache=2)
    for wrong in ({"model": "x"}, {"model": str(tmp_path / "x.safetensors"), "image": drawing()}, "x"):
        with pytest.raises((ParameterError, PresetError)):
            ours_with(family, reference=wrong)


def test_through_the_command_line_and_replayed(tmp_path, capsys):
    from pictura.cli import main
    from pictura.picture import Picture

    pipe = pipeline("sd1", 1)
    pipe.save_pretrained(tmp_path / "model")
    control(pipe, tmp_path / "edges", 0)
    ip_adapter(pipe, tmp_path, random.Random(1), pipe.unet.config.cross_attention_dim)
    drawing(1).save(tmp_path / "edges.png")
    drawing(2).save(tmp_path / "style.png")
    out = tmp_path / "cat.png"
    said = ["generate", PROMPT, "--model", str(tmp_path / "model"), "--steps", "2", "--size", "48x32"]
    said += ["--dtype", "float32", "--seed", "5"]
    said += ["--control", f"{tmp_path / 'edges'}:{tmp_path / 'edges.png'}:0.8"]
    said += ["--style-image", str(tmp_path / "style.png")]
    said += ["--ip-adapter", f"{tmp_path / 'style.safetensors'}:0.6"]
    assert main([*said, "--out", str(out)]) == 0
    options = Picture.open(out).request.options
    assert options["control"][0]["weight"] == 0.8 and len(options["control"][0]["sha256"]) == 64
    assert options["reference"]["weight"] == 0.6
    for name in ("edges.png", "style.png"):  # a replay needs the networks, and has its own copy of pictures
        (tmp_path / name).unlink()
    assert main(["replay", str(out), "--check"]) == 0
    control(pipe, tmp_path / "edges", 9)
    capsys.readouterr()
    assert main(["replay", str(out), "--check"]) == 2
    assert "another than the request was made with" in capsys.readouterr().err
    assert main([*said[:2], "--style-image", "x.png"]) == 2
