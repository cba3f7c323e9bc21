"""One row of the UNets of Stable Diffusion 2 at 768 px and XL at 1024 px, against diffusers in the same run.

Random weights, the same for both by their names; each network in fresh processes, whose peak of memory is
read. XL in bfloat16 only: in float32 its weights alone are 10 GB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import torch
from _common import ROOT, arguments, machine, seconds, spread, write
from safetensors.torch import load_file, save_file
from stable_diffusion import off, peak
from torch import Tensor, nn

from pictura.nn import kernels
from pictura.nn.unet import UNet

LAST = torch.channels_last
CONFIGS: dict[str, dict[str, Any]] = {
    "2.x": {"attention_head_dim": [5, 10, 20, 20], "cross_attention_dim": 1024},
    "xl": {
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
PIXELS = {"2.x": 768, "xl": 1024}
WAYS = {
    "2.x": ("diffusers float32", "float32", "diffusers bfloat16", "bfloat16"),
    "xl": ("diffusers bfloat16", "bfloat16"),
}


def config(version: str, quick: bool) -> dict[str, Any]:
    """At the real widths, with `quick` at an eighth of them."""
    found = CONFIGS[version] | {"use_linear_projection": True}
    if quick:
        widths = found.get("block_out_channels", [320, 640, 1280, 1280])
        found |= {"block_out_channels": [width // 10 for width in widths], "attention_head_dim": 2}
    return found


def filled(network: nn.Module) -> nn.Module:
    """With numbers that depend on nothing but the names and sizes of parameters, made quickly."""
    network.to_empty(device="cpu")
    for name, parameter in network.state_dict().items():
        source = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        some = 0.02 * torch.randn(min(parameter.numel(), 1 << 20), generator=source)
        some += 1.0 if "norm" in name and name.endswith("weight") else 0.0
        repeated = some.to(parameter.dtype).repeat(-(-parameter.numel() // some.numel()))
        parameter.copy_(repeated[: parameter.numel()].view(parameter.shape))
    return network.eval().requires_grad_(False).to(memory_format=LAST)


def evaluation(name: str, version: str, quick: bool) -> Callable[[], Tensor]:
    """The network `name` of WAYS, as users get it, on one row."""
    dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
    side = 16 if quick else PIXELS[version] // 8
    settings, source = config(version, quick), torch.Generator().manual_seed(1)
    x, text = (
        torch.randn(1, 4, side, side, generator=source),
        torch.randn(1, 77, settings["cross_attention_dim"], generator=source),
    )
    pooled, ids = torch.randn(1, 1280, generator=source), torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]])
    x, text, pooled = x.to(dtype).to(memory_format=LAST), text.to(dtype), pooled.to(dtype)
    time = torch.tensor([500.0])
    if name.startswith("diffusers"):
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            theirs = UNet2DConditionModel(**settings).to(dtype)
        theirs = filled(theirs)
        added = {"text_embeds": pooled, "time_ids": ids} if version == "xl" else None
        return lambda: theirs(x, time, text, added_cond_kwargs=added, return_dict=False)[0].float()
    with torch.device("meta"):
        made = UNet(settings).to(dtype)
    ours: Any = kernels.accelerate(filled(made))
    return lambda: ours(x, time, text, ours.sizes(pooled, ids) if version == "xl" else None).float()


def one(name: str, version: str, file: str, quick: bool) -> None:
    """What a fresh process does: evaluate twice, write the answer, tell what the second time took."""
    evaluate = evaluation(name, version, quick)
    save_file({"answer": evaluate().contiguous()}, file)
    before = process_time()
    took = seconds(evaluate)
    print(json.dumps({"seconds": took, "cpu": process_time() - before, "gb": peak() / 1e9}))


def measured(version: str, quick: bool, folder: Path) -> dict[str, Any]:
    names = WAYS[version]
    told: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    for _ in range(2):
        for name, values in told.items():
            command = [sys.executable, str(Path(__file__)), *(["--quick"] if quick else []), "--one"]
            command += [version, str(folder / name), name]
            run = subprocess.run(command, env=environment, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(f"a measured process failed:\n{run.stderr[-3000:]}")
            values.append(json.loads(run.stdout.splitlines()[-1]))
            print(version, name, values[-1], file=sys.stderr)
    answers = {name: load_file(folder / name)["answer"] for name in names}

    def against(name: str, key: str) -> float:
        """How many times as much diffusers takes in the same precision."""
        theirs = f"diffusers {name}"
        return round(median(v[key] for v in told[theirs]) / median(v[key] for v in told[name]), 3)

    ours = [name for name in names if not name.startswith("diffusers")]
    return {
        "pixels": PIXELS[version],
        "seconds": {name: spread([v["seconds"] for v in values], 3) for name, values in told.items()},
        "processor_seconds": {name: spread([v["cpu"] for v in values], 3) for name, values in told.items()},
        "peak_gb": {name: spread([v["gb"] for v in values], 3) for name, values in told.items()},
        "ratio": {name: against(name, "seconds") for name in ours},
        "processor_ratio": {name: against(name, "cpu") for name in ours},
        "memory": {name: round(1 / against(name, "gb"), 3) for name in ours},
        "difference": {name: off(answers[name], answers[names[0]]) for name in names[1:]},
    }


def main() -> None:
    if "--one" in sys.argv:
        with torch.no_grad():
            version, file, name = sys.argv[-3:]
            return one(name, version, file, "--quick" in sys.argv)
    options, before = arguments(__doc__ or ""), machine()
    with TemporaryDirectory() as folder, torch.no_grad():
        found = {version: measured(version, options.quick, Path(folder)) for version in WAYS}
    write("unets", {"threads": torch.get_num_threads(), **found}, options, before)


if __name__ == "__main__":
    main()
