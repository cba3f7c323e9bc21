"""Blocks of SD3 medium and FLUX.1 at their full width: seconds an evaluation, what precision costs, memory.

A few blocks of each, with random weights that diffusers' network shares, take turns with it; the time of a
whole network is that of its blocks. Pictures for the loss are those of the built-in model, which is trained.
Memory is the peak of fresh processes less what `import torch` takes.
"""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import ROOT, arguments, in_turn, machine, seconds, spread, write
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel
from torch import Tensor, nn

import pictura
from pictura.families.flux.model import DEFAULTS, FluxTransformer, pack, positions, unpack
from pictura.families.stable_diffusion_3.model import MMDiT
from pictura.formats import networks
from pictura.nn import kernels, precision
from pictura.nn.block_cache import BlockCache

THREADS = 2
SD3 = {"num_layers": 3, "num_attention_heads": 24, "attention_head_dim": 64, "caption_projection_dim": 1536,
       "pos_embed_max_size": 96}  # fmt: skip
FLUX = {"num_layers": 1, "num_single_layers": 2, "guidance_embeds": True}
QUICK = {"num_attention_heads": 2, "caption_projection_dim": 128, "joint_attention_dim": 96}
PROMPTS = ("a cat left of a pizza on a blue background", "three stars", "an owl above a pine tree",
           "a rocket on a yellow background")  # fmt: skip


def sd3(quick: bool, side: int) -> tuple[nn.Module, nn.Module, Callable[..., Tensor], Callable[..., Tensor]]:
    """(theirs, ours, a call of theirs, a call of ours), both networks with the same tensors."""
    theirs = SD3Transformer2DModel(**SD3 | (QUICK if quick else {})).eval()
    ours = MMDiT(dict(theirs.config))
    inputs = [torch.randn(1, 16, side, side), torch.tensor([500.0])]
    inputs += [torch.randn(1, 333, theirs.config.joint_attention_dim), torch.randn(1, 2048)]

    def ask_theirs(network: nn.Module) -> Tensor:
        x, time, context, pooled = (t.to(network.dtype) for t in inputs)
        return network(x, context, pooled, time, return_dict=False)[0]

    return theirs, ours, ask_theirs, lambda network: network(*cast(inputs, network))


def flux(quick: bool, side: int) -> tuple[nn.Module, nn.Module, Callable[..., Tensor], Callable[..., Tensor]]:
    """As `sd3`."""
    less = {name: value for name, value in QUICK.items() if name != "caption_projection_dim"}
    theirs = FluxTransformer2DModel(**FLUX | (less if quick else {})).eval()
    ours = FluxTransformer(dict(theirs.config))
    inputs = [torch.randn(1, 16, side, side), torch.tensor([0.5])]
    inputs += [
        torch.randn(1, 512, theirs.config.joint_attention_dim),
        torch.randn(1, 768),
        torch.tensor([3.5]),
    ]
    ids = positions(512, side // 2, side // 2)

    def ask_theirs(network: nn.Module) -> Tensor:
        x, time, context, pooled, guidance = (t.to(network.dtype) for t in inputs)
        answer = network(
            pack(x),
            context,
            pooled,
            time,
            img_ids=ids[512:],
            txt_ids=ids[:512],
            guidance=guidance,
            return_dict=False,
        )[0]
        return unpack(answer, side // 2, side // 2)

    return theirs, ours, ask_theirs, lambda network: network(*cast(inputs, network))


def cast(inputs: list[Tensor], network: nn.Module) -> list[Tensor]:
    dtype = next(network.parameters()).dtype
    x, time, context, pooled, *guidance = inputs
    return [x.to(dtype), time, context.to(dtype), pooled.to(dtype), *guidance]


def steps(make: Callable[..., Any], quick: bool, runs: int) -> dict[str, Any]:
    """Seconds an evaluation and what it is off by, by precision, theirs and ours in turn."""
    side = 16 if quick else 64  # of the latent: 128 and 512 px
    torch.manual_seed(0)
    theirs, ours, ask_theirs, ask_ours = make(quick, side)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    ours.requires_grad_(False).eval()
    exact = ask_theirs(theirs)
    halves = copy.deepcopy(theirs).bfloat16(), copy.deepcopy(ours).bfloat16()
    small = precision.with_int8(copy.deepcopy(halves[1]))
    for network in (ours, halves[1], small):
        kernels.accelerate(network)
    calls: dict[str, Callable[[], Tensor]] = {
        "diffusers float32": lambda: ask_theirs(theirs),
        "float32": lambda: ask_ours(ours),
        "diffusers bfloat16": lambda: ask_theirs(halves[0]),
        "bfloat16": lambda: ask_ours(halves[1]),
        "int8": lambda: ask_ours(small),
    }
    off = {name: float((call().float() - exact).norm() / exact.norm()) for name, call in calls.items()}
    timed = {name: (lambda call=call: seconds(call)) for name, call in calls.items()}
    found = {name: spread(values) for name, values in in_turn(timed, runs).items()}
    base = found["diffusers float32"]["median"]
    return {
        "parameters": sum(p.numel() for p in theirs.parameters()),
        "pixels": 8 * side,
        "seconds": found,
        "times diffusers float32": {name: round(base / one["median"], 2) for name, one in found.items()},
        "relative_error": {name: round(value, 7) for name, value in off.items()},
    }


def loss(quick: bool) -> dict[str, Any]:
    """PSNR against float32 of pictures by the built-in model, in decibels; infinite ones count as 99."""
    prompts = PROMPTS[:1] if quick else PROMPTS
    options = {"seed": 7, "num_steps": 2 if quick else 12}
    model = pictura.TextToImage.from_preset("scenes", history=False)
    exact = np.asarray(model.generate(list(prompts), **options), float)
    found = {}
    for dtype in ("bfloat16", "int8"):
        model = pictura.TextToImage.from_preset("scenes", dtype="bfloat16", history=False)
        if dtype == "int8":
            for linear in model.backbone["denoiser"].blocks.modules():
                if isinstance(linear, nn.Linear):
                    precision.quantise(linear)
        pictures = np.asarray(model.generate(list(prompts), **options), float)
        errors = ((pictures - exact) ** 2).mean((1, 2, 3))
        found[dtype] = spread([min(10 * math.log10(255**2 / max(e, 1e-6)), 99) for e in errors], 1)
    return found


def cached(quick: bool) -> dict[str, Any]:
    """28 steps of Euler's method through a network of 12 narrow blocks with random weights: by tolerance, the
    share of steps that left blocks out and what the last latent is off by. The first block of such a network
    changes by half from step to step; `savings.py` measures trained ones."""
    torch.manual_seed(0)
    heads = 2 if quick else 6
    config = (
        SD3 | QUICK | {"num_layers": 12, "num_attention_heads": heads, "caption_projection_dim": 64 * heads}
    )
    network = MMDiT(config).requires_grad_(False).eval()
    noise, context, pooled = torch.randn(1, 16, 32, 32), torch.randn(1, 60, 96), torch.randn(1, 2048)
    sigmas = torch.linspace(1, 0, 3 if quick else 29)

    def draw(cache: BlockCache | None) -> Tensor:
        x = noise
        for now, then in zip(sigmas, sigmas[1:], strict=False):
            x = x + (then - now) * network(x, 1000 * now[None], context, pooled, cache=cache)
        return x

    exact, found = draw(None), {}
    for tolerance in (0.45, 0.5, 0.55, 0.6):
        cache = BlockCache(tolerance)
        off = float((draw(cache) - exact).norm() / exact.norm())
        share = cache.left_out / (cache.left_out + cache.computed)
        found[str(tolerance)] = {"left_out": round(share, 2), "relative_error": round(off, 4)}
    return found


LOAD = """
import json, sys
import torch
torch.set_grad_enabled(False)
torch.set_num_threads(2)
def peak():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
way, folder, config = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if way == "diffusers":
    from diffusers import FluxTransformer2DModel
    before = peak()
    network = FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.bfloat16)
else:
    from pathlib import Path
    from pictura.families.flux.model import FluxTransformer
    from pictura.formats import networks, safetensors
    class Model:
        def __init__(self):
            self.network = FluxTransformer(config)
        def networks(self):
            return {"n": self.network}
    before = peak()
    entries = safetensors.weights(Path(folder), "diffusion_pytorch_model")
    entries = {"n." + name: entry for name, entry in entries.items()}
    network = networks.build(Model, entries, dtype=torch.bfloat16, streamed=way == "streamed").network
loaded = peak()
if way == "streamed":
    half = torch.bfloat16
    width, pooled = config["joint_attention_dim"], config["pooled_projection_dim"]
    x = torch.zeros(1, config["in_channels"] // 4, 32, 32, dtype=half)
    network(x, torch.tensor([0.5]), torch.zeros(1, 64, width, dtype=half), torch.zeros(1, pooled, dtype=half),
            torch.tensor([3.5]))
print(json.dumps({"load": loaded - before, "evaluation": peak() - before, "process": peak()}))
"""


def peaks(way: str, folder: Path, config: dict[str, Any]) -> dict[str, int]:
    command = [sys.executable, "-c", LOAD, way, str(folder), json.dumps(config)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"a measured process failed:\n{done.stderr[-3000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def empty(folder: Path, config: dict[str, Any]) -> int:
    """A file of zeros with the layout of such a FLUX in bfloat16, which takes no room on disk; its bytes."""
    with torch.device("meta"):
        tensors = networks.tensors({"n": FluxTransformer(config)})
    header, end = {}, 0
    for name, tensor in tensors.items():
        size = 2 * tensor.numel()
        where = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        header[name.removeprefix("n.")] = where
        end += size
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    with open(folder / "diffusion_pytorch_model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps({"_class_name": "FluxTransformer2DModel", **config}))
    return 8 + len(text) + end


def memory(quick: bool) -> dict[str, Any]:
    """Of loads of a part of FLUX, and of one evaluation of the whole of it that streams."""
    config = {**DEFAULTS, **FLUX}
    config |= {"num_attention_heads": 2 if quick else 24}
    whole = config | ({} if quick else {"num_layers": 19, "num_single_layers": 38})
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        size = empty(Path(place), config)
        for way in ("pictura", "diffusers"):
            found[way] = {"of_the_file": round(peaks(way, Path(place), config)["load"] / size, 2)}
        found["file_gb"] = round(size / 1e9, 2)
        size = empty(Path(place), whole)
        streamed = peaks("streamed", Path(place), whole)
        found["streamed"] = {
            "file_gb": round(size / 1e9, 2),
            "process_gb": round(streamed["process"] / 1e9, 2),
            "of_the_file": round(streamed["evaluation"] / size, 3),
        }
    return found


@torch.no_grad()
def main() -> None:
    options = arguments(__doc__ or "")
    before, runs = machine(), 1 if options.quick else 3
    torch.set_num_threads(THREADS)
    results = {
        "threads": THREADS,
        "sd3": steps(sd3, options.quick, runs),
        "flux": steps(flux, options.quick, runs),
        "psnr": loss(options.quick),
        "block_cache": cached(options.quick),
        "memory": memory(options.quick),
    }
    write("blocks", results, options, before)


if __name__ == "__main__":
    main()
