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


def ip_adapter(pipe, folder, rng, context):
    """Files as published ones, and the same as diffusers takes them."""
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=16,
        patch_size=4, projection_dim=12,
    )  # fmt: skip
    encoder = redrawn(transformers.CLIPVisionModelWithProjection(config), rng)
    encoder.save_pretrained(folder / "image_encoder")
    draw = torch.Generator().manual_seed(5)

    def random_tensor(*shape):
        return torch.randn(shape, generator=draw) * 0.2

    projection = {
        "proj.weight": random_tensor(4 * context, 12), "proj.bias": random_tensor(4 * context),
        "norm.weight": 1 + random_tensor(context), "norm.bias": random_tensor(context),
    }  # fmt: skip
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
