"""Stable Diffusion 1.5's networks at 512 px, random weights, against diffusers in the same run.

A guided step is the UNet on two rows: diffusers' in one batch, ours one after the other, as pictures are made
on CPUs. Each runs in fresh processes, whose peak of memory is read. All have channels last and the same
weights; the answers are compared too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from _common import ROOT, arguments, machine, seconds, spread, write
from torch import Tensor, nn

from pictura.nn import kernels, tiled
from pictura.nn.unet import UNet
from pictura.nn.vae import AutoencoderKL

TARGETS = {"step": 1.35, "decode": 1.7, "memory": 0.7}
LAST = torch.channels_last


def unet_config(quick: bool) -> dict[str, Any]:
    config: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
    return config | ({"block_out_channels": [32, 32, 64, 64]} if quick else {})


def vae_config(quick: bool) -> dict[str, Any]:
    widths = [32, 32, 64, 64] if quick else [128, 256, 512, 512]
    down, up = ["DownEncoderBlock2D"] * 4, ["UpDecoderBlock2D"] * 4
    kinds = {"down_block_types": down, "up_block_types": up}
    return {"block_out_channels": widths, "layers_per_block": 2, **kinds}


def ready(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False).to(memory_format=LAST)


def off(ours: Tensor, theirs: Tensor) -> float:
    return float(f"{float((ours - theirs).abs().max() / theirs.abs().max()):.2g}")


def network(name: str, part: str, quick: bool) -> tuple[nn.Module, Callable[[], Tensor]]:
    """`part` ("step" or "decode") of a library: its network, as users get it, and the evaluation measured."""
    torch.manual_seed(0)
    side, text = (16 if quick else 64), torch.randn(2, 77, 768)
    x, time = torch.randn(2, 4, side, side).to(memory_format=LAST), torch.tensor([500.0, 500.0])
    if name == "diffusers":
        from diffusers import AutoencoderKL as TheirVae
        from diffusers import UNet2DConditionModel

        if part == "decode":
            theirs = ready(TheirVae(**vae_config(quick)))
            return theirs, lambda: theirs.decode(x[:1], return_dict=False)[0]
        theirs = ready(UNet2DConditionModel(**unet_config(quick)))
        return theirs, lambda: theirs(x, time, text, return_dict=False)[0]
    dtype = torch.bfloat16 if name.endswith("bfloat16") else torch.float32
    if part == "decode":
        made: nn.Module = AutoencoderKL(vae_config(quick))
        ours = kernels.accelerate(ready(made).to(dtype))
        return ours, lambda: ours.decode(x[:1].to(dtype)).float()  # type: ignore[operator]
    ours = kernels.accelerate(ready(UNet(unet_config(quick))).to(dtype))
    x, text = x.to(dtype), text.to(dtype)
    rows = [(x[i : i + 1], time[:1], text[i : i + 1]) for i in range(2)]  # as the engine asks on a CPU
    return ours, lambda: torch.cat([ours(*row) for row in rows]).float()


def one(name: str, part: str, quick: bool) -> None:
    """What a fresh process does: evaluate twice, tell the seconds of the second, by the clock and of all
    processors, and the peak of memory."""
    _, evaluate = network(name, part, quick)
    evaluate()
    before = process_time()
    took = seconds(evaluate)
    print(json.dumps({"seconds": took, "cpu": process_time() - before, "gb": peak() / 1e9}))


def peak() -> int:
    """Bytes that this process took at most. Linux's `ru_maxrss` would count its parent's, too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(part: str, names: tuple[str, ...], quick: bool) -> dict[str, Any]:
    """Every library in processes of its own, in turn; ratios to diffusers, and how far answers lie apart."""
    command = [sys.executable, str(Path(__file__)), *(["--quick"] if quick else []), "--one", part]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    told: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(2 if quick else 3):
        for name, values in told.items():
            run = subprocess.run([*command, name], env=environment, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(f"a measured process failed:\n{run.stderr[-3000:]}")
            values.append(json.loads(run.stdout.splitlines()[-1]))

    def middle(name: str, key: str) -> float:
        return median(value[key] for value in told[name])

    theirs, right = network("diffusers", part, quick)
    expected, state = right(), theirs.state_dict()
    del theirs, right
    apart = {}
    for name in names[1:]:
        ours, evaluate = network(name, part, quick)
        ours.load_state_dict(state)
        apart[name] = off(evaluate(), expected)
    first = names[0]
    return {
        "seconds": {name: spread([v["seconds"] for v in values], 3) for name, values in told.items()},
        "peak_gb": {name: spread([v["gb"] for v in values], 3) for name, values in told.items()},
        "processor_seconds": {name: spread([v["cpu"] for v in values], 3) for name, values in told.items()},
        "ratio": {n: round(middle(first, "seconds") / middle(n, "seconds"), 3) for n in names[1:]},
        "processor_ratio": {n: round(middle(first, "cpu") / middle(n, "cpu"), 3) for n in names[1:]},
        "memory": {n: round(middle(n, "gb") / middle(first, "gb"), 3) for n in names[1:]},
        "difference": apart,
    }


def main() -> None:
    if "--one" in sys.argv:
        with torch.no_grad():
            return one(sys.argv[-1], sys.argv[-2], "--quick" in sys.argv)
    options, before = arguments(__doc__ or ""), machine()
    ways = ("diffusers", "pictura", "pictura, bfloat16")
    with torch.no_grad():
        decode = measured("decode", ways, options.quick)
        step = measured("step", ways, options.quick)
    results = {
        "threads": torch.get_num_threads(),
        "step": step,
        "decode": decode,
        "rates": {of: dict(kernels.rates(of)) for of in ("products", "attentions")}
        | {"convolutions": dict(tiled.rates())},
        "targets": {
            f"float32 step {TARGETS['step']}x": step["ratio"]["pictura"] >= TARGETS["step"],
            f"float32 decode {TARGETS['decode']}x in {TARGETS['memory']}x the memory": decode["ratio"][
                "pictura"
            ]
            >= TARGETS["decode"]
            and decode["memory"]["pictura"] <= TARGETS["memory"],
            f"bfloat16 decode {TARGETS['decode']}x": decode["ratio"]["pictura, bfloat16"]
            >= TARGETS["decode"],
            "float32 the same to 1e-4": max(f["difference"]["pictura"] for f in (step, decode)) <= 1e-4,
        },
    }
    write("stable_diffusion", results, options, before)


if __name__ == "__main__":
    main()
