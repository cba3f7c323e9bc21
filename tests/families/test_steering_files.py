"""ControlNets and T2I-Adapters as single files: names against diffusers' own conversion, pictures against the
same network as a folder."""

from __future__ import annotations

import random
import re
import time

import diffusers
import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from PIL import Image
from safetensors.torch import save_file

from pictura.attachments import attached
from pictura.engine import solve
from pictura.errors import CheckpointError, PicturaError, PresetError
from pictura.families.stable_diffusion import steering_files as files
from pictura.formats.rules import Rule
from pipelines import family_of, pipeline, redrawn, request_for
from steering import original

SAID = {"num_steps": 3, "seed": 3, "size": (48, 32), "guidance_scale": 3.0, "sampler": "euler"}
KINDS = ("sd1", "sd2", "sdxl")
TWO, FOUR = (8, 16), (8, 16, 16, 24)  # widths of the picture's way in: for small latents, as published
TOLD = (
    "in_channels", "block_out_channels", "layers_per_block", "down_block_types", "cross_attention_dim",
    "use_linear_projection", "addition_embed_type", "projection_class_embeddings_input_dim",
    "conditioning_channels", "conditioning_embedding_out_channels", "attention_head_dim", "norm_num_groups",
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    pipe = pipeline(request.param, 1)
    return request.param, pipe, family_of(pipe, request.param)


def drawn(family, model, **more):
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8))
    control = attached([{"model": str(model), "image": picture, **more}], "control", "picture")
    request = request_for(family, "a red cat on a tree", **SAID, options={"control": control})
    family.check(request)
    return solve(family, family.run(request, lambda level, x0: None))


def written(state, path):
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)
    return path


def controlnet(pipe, seed, widths=TWO):
    made = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=widths)
    return redrawn(made, random.Random(seed))


def test_original_names_are_those_that_diffusers_reads(model):
    """Its conversion knows nothing of XL's second embedding, whose names are the UNet's."""
    _, pipe, _ = model
    net = controlnet(pipe, 1, FOUR)
    theirs = convert_controlnet_checkpoint(original(net), dict(net.config))
    wanted = net.state_dict()
    assert {name for name in wanted if "add_embedding" not in name} == theirs.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in theirs.items())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_what_shapes_tell_is_the_configuration(kind, seed, tmp_path):
    pipe = pipeline(kind, seed)
    net = controlnet(pipe, seed, random.Random(seed).choice([TWO, FOUR]))
    base = dict(pipe.unet.config)
    for name, state in (("a", original(net)), ("b", net.state_dict())):
        found = files.control(str(written(state, tmp_path / f"{name}.safetensors")), base)
        assert found.entries.keys() == net.state_dict().keys()
        for key in TOLD:
            told, value = (
                list(v) if isinstance(v := c[key], tuple) else v for c in (found.config, net.config)
            )
            assert told == value, key


SD2 = {"cross_attention_dim": 1024, "use_linear_projection": True}
XL = {
    "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": [1, 2, 10], "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip


@pytest.mark.parametrize("config", [{"cross_attention_dim": 768}, SD2, XL], ids=KINDS)
def test_published_sizes(config):
    """Without memory for them: what a file's shapes tell is what the network was made of."""
    with torch.device("meta"):
        net = diffusers.ControlNetModel(**config)
    shapes = {name: tuple(tensor.shape) for name, tensor in original(net).items()}
    found = files.CONTROLNET.config(shapes)
    for key in (*TOLD[:-2], "transformer_layers_per_block"):
        value = net.config[key]
        assert found[key] == (list(value) if isinstance(value, tuple) else value), key


def test_a_file_is_the_folder(model, tmp_path):
    kind, pipe, family = model
    net = controlnet(pipe, 1)
    net.save_pretrained(tmp_path / "folder")
    expected = drawn(family, tmp_path / "folder")
    state = original(net)
    spellings = {
        "original": state,
        "of a whole model": {f"control_model.{name}": tensor for name, tensor in state.items()}
        | {"first_stage_model.quant_conv.bias": torch.ones(8)},
        "diffusers": net.state_dict(),
        "half": {name: tensor.half() for name, tensor in state.items()},
    }
    for name, tensors in spellings.items():
        found = drawn(family, written(tensors, tmp_path / f"{name}.safetensors"))
        off = (found - expected).abs().max()
        assert off < 1e-2 if name == "half" else off == 0, (kind, name)
    (tmp_path / "diffusers.json").write_text('{"controlnet_conditioning_channel_order": "bgr"}')
    assert (drawn(family, tmp_path / "diffusers.safetensors") == expected).all(), "weights read once are kept"
    flipped = drawn(family_of(pipe, kind), tmp_path / "diffusers.safetensors")
    assert (flipped - expected).abs().max() > 1e-3, "what stands beside the file counts"


def first_names(state):
    """A T2I-Adapter's tensors under the original names, after diffusers' script that converts those."""
    layers = 1 + max(int(name.split(".")[4]) for name in state if ".resnets." in name)
    light = "adapter.body.0.out_conv.weight" in state
    found = {}
    for name, tensor in state.items():
        short = name.removeprefix("adapter.")
        if light:
            short = short.replace("resnets", "body")
        elif part := re.match(r"body\.(\d+)\.(?:resnets\.(\d+)|in_conv)", short):
            number = int(part[1]) * layers + int(part[2] or 0)
            tail = short[part.end() :] if part[2] else f".in_conv{short[part.end() :]}"
            short = f"body.{number}{tail}"
        found[short] = tensor
    return found


@pytest.mark.parametrize("layers", [1, 2])
def test_t2i_adapters(model, layers, tmp_path):
    kind, pipe, family = model
    widths = list(pipe.unet.config.block_out_channels)
    full = "full_adapter_xl" if kind == "sdxl" else "full_adapter"
    for name in (full, "light_adapter")[: 1 if kind == "sdxl" else 2]:  # XL has no light ones
        squares = 4 if name == "full_adapter_xl" else 2  # for the latents of small models
        net = diffusers.T2IAdapter(
            channels=widths, num_res_blocks=layers, downscale_factor=squares, adapter_type=name
        )
        redrawn(net, random.Random(layers)).save_pretrained(tmp_path / name)
        expected = drawn(family, tmp_path / name)
        state = net.state_dict()
        spellings = {"new": state}
        if kind != "sdxl":  # XL's are only published in diffusers' names
            spellings["old"] = first_names(state)
        for spelling, tensors in spellings.items():
            found = drawn(family, written(tensors, tmp_path / f"{name}-{spelling}.safetensors"))
            assert torch.equal(found, expected), (name, spelling)


def test_published_names_of_t2i_adapters():
    """Some of what diffusers' script for the published files names, with their eight blocks."""
    names = {f"body.{at}.block1.weight": 0 for at in range(8)}
    names |= {"body.2.in_conv.weight": 0, "body.4.in_conv.weight": 0}
    rules = set(files._levels(names))
    for theirs, ours in {
        "body.1": "adapter.body.0.resnets.1",
        "body.2": "adapter.body.1.resnets.0",
        "body.2.in_conv": "adapter.body.1.in_conv",
        "body.4.in_conv": "adapter.body.2.in_conv",
        "body.7": "adapter.body.3.resnets.1",
    }.items():
        assert Rule(theirs, (ours,)) in rules


def test_wrong_files_are_refused(tmp_path):
    pipe = pipeline("sd1", 1)
    family = family_of(pipe, "sd1")
    good = original(controlnet(pipe, 1))
    other = original(controlnet(pipeline("sdxl", 1), 1))
    zero = next(name for name in good if name.startswith("zero_convs.1."))
    one = torch.ones(1)
    deep = {**good, "middle_block.1.transformer_blocks.998.norm1.weight": one}
    wide = controlnet(pipe, 1).state_dict()
    wide["conv_in.weight"] = wide["conv_in.weight"][:, :2]
    adapter = diffusers.T2IAdapter(channels=[8, 24], num_res_blocks=1, downscale_factor=2)
    wrong = {
        "xl": (other, "is for another model: its "),
        "adapter": (adapter.state_dict(), r"its widths are \(8, 24\)"),
        "vae": (pipe.vae.state_dict(), "is no ControlNet or T2I-Adapter"),
        "lacks": ({name: t for name, t in good.items() if name != zero}, "controlnet_down_blocks.1"),
        "more": ({**good, "lora_controlnet": one}, "'lora_controlnet' in .* belongs to no part"),
        "deep": (deep, "the shapes of its controlnet do not fit together"),
        "bomb": (wide | {f"down_blocks.{at}.x": one for at in ("998", "0.resnets.998")}, "numbered higher"),
        "shape": ({**good, zero: good[zero][:-1]}, "controlnet_down_blocks.1.* has shape"),
        "narrow": (wide | {"conv_in.bias": torch.ones(0)}, "conv_in.bias.* has shape"),
    }
    for name, (state, said) in wrong.items():
        path = written(state, tmp_path / f"{name}.safetensors")
        began = time.process_time()
        with pytest.raises(CheckpointError, match=said):
            drawn(family, path)
            raise AssertionError(name)
        assert time.process_time() - began < 1, name
    whole = (tmp_path / "lacks.safetensors").read_bytes()
    for name, data, kind in (
        ("cut.safetensors", whole[:-4], CheckpointError),
        ("empty.safetensors", b"", CheckpointError),
        ("pickle.safetensors", b"\x80\x04...", CheckpointError),
        ("control_sd15_canny.pth", b"\x80\x04...", PresetError),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(kind, match="convert it" if b"\x80" in data[:1] else "not a sound"):
            drawn(family, tmp_path / name)
    (tmp_path / "good.json").write_text("{")
    with pytest.raises(PicturaError, match="good.json"):
        drawn(family, written(good, tmp_path / "good.safetensors"))


def test_through_the_command_line_and_replayed(tmp_path, capsys):
    from pictura.cli import main
    from pictura.picture import Picture

    pipe = pipeline("sd1", 1)
    pipe.save_pretrained(tmp_path / "model")
    file = written(original(controlnet(pipe, 1)), tmp_path / "canny.safetensors")
    Image.new("RGB", (48, 32), "white").save(tmp_path / "edges.png")
    out = tmp_path / "cat.png"
    said = ["generate", "a cat", "--model", str(tmp_path / "model"), "--steps", "2", "--size", "48x32"]
    said += ["--dtype", "float32", "--seed", "5", "--control", f"{file}:{tmp_path / 'edges.png'}:0.8"]
    assert main([*said, "--out", str(out)]) == 0
    assert Picture.open(out).request.options["control"][0]["model"] == str(file)
    assert main(["replay", str(out), "--check"]) == 0
    written(original(controlnet(pipe, 2)), file)
    capsys.readouterr()
    assert main(["replay", str(out), "--check"]) == 2
    assert "another than the request was made with" in capsys.readouterr().err
