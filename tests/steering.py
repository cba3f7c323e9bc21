"""Random ControlNets and IP-Adapters for random pipelines, as files that Pictura reads."""

from __future__ import annotations

import random

import diffusers
import torch
import transformers
from safetensors.torch import save_file

from pictura.families.stable_diffusion import steering_files
from pipelines import redrawn


def control(pipe, folder, seed):
    made = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16))
    redrawn(made, random.Random(seed)).save_pretrained(folder)
    return made


def original(net):
    """The tensors of diffusers' network under the original names: our rules, followed backwards."""
    back = {rule.ours[0]: rule.theirs for rule in steering_files.controlnet(net.config)}
    found = {}
    for name, tensor in net.state_dict().items():
        head = next(head for head in _heads(name) if head in back)
        found[back[head] + name.removeprefix(head)] = tensor
    return found


def _heads(name):
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))


def ip_adapter(pipe, folder, rng, context, kind="plain"):
    """Files as published ones, and the same as diffusers takes them. kind: "plain", "plus" or "full"."""
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16,
        patch_size=4, projection_dim=12,
    )  # fmt: skip
    encoder = redrawn(transformers.CLIPVisionModelWithProjection(config), rng)
    encoder.save_pretrained(folder / "image_encoder")
    draw = torch.Generator().manual_seed(5)

    def random_tensor(*shape):
        return torch.randn(shape, generator=draw) * 0.2

    def norm(name, width):
        return {f"{name}.weight": 1 + random_tensor(width), f"{name}.bias": random_tensor(width)}

    def linear(name, rows, columns):
        return {f"{name}.weight": random_tensor(rows, columns), f"{name}.bias": random_tensor(rows)}

    if kind == "plain":
        projection = linear("proj", 4 * context, 12) | norm("norm", context)
    elif kind == "full":
        projection = linear("proj.0", 16, 16) | linear("proj.2", context, 16) | norm("proj.3", context)
    else:  # a resampler with two heads of 64 to twelve tokens
        projection = {"latents": random_tensor(1, 12, 20)}
        projection |= linear("proj_in", 20, 16) | linear("proj_out", context, 20) | norm("norm_out", context)
        for at in range(4):  # diffusers knows no other depth
            projection |= norm(f"layers.{at}.0.norm1", 20) | norm(f"layers.{at}.0.norm2", 20)
            projection |= norm(f"layers.{at}.1.0", 20)
            for name, rows, columns in (
                ("0.to_q", 128, 20), ("0.to_kv", 256, 20), ("0.to_out", 20, 128), ("1.1", 80, 20),
                ("1.3", 20, 80),
            ):  # fmt: skip
                projection[f"layers.{at}.{name}.weight"] = random_tensor(rows, columns)
    keys, at = {}, 1
    for name in pipe.unet.attn_processors:
        if name.endswith("attn2.processor"):
            width = pipe.unet.get_submodule(name.removesuffix(".processor")).to_q.weight.shape[0]
            for part in ("to_k_ip", "to_v_ip"):
                keys[f"{at}.{part}.weight"] = random_tensor(width, context)
            at += 2
    flat = {f"image_proj.{name}": value for name, value in projection.items()}
    flat |= {f"ip_adapter.{name}": value for name, value in keys.items()}
    save_file(flat, folder / "style.safetensors")
    return encoder, {"image_proj": projection, "ip_adapter": keys}
