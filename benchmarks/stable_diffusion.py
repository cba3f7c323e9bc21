"""Stable Diffusion 1.5's networks at 512 px in float32, random weights, against diffusers in the same run.

A guided step is the UNet on two rows: diffusers' in one batch, ours one after the other, as pictures are made
on CPUs. Decoding runs in fresh processes, whose peak of memory is read. Both have channels last and the same
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
from typing import Any

import torch
from _common import ROOT, arguments, in_turn, machine, seconds, spread, write
from torch import Tensor, nn

from pictura.nn import kernels
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


def step(quick: bool) -> dict[str, Any]:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    theirs = ready(UNet2DConditionModel(**unet_config(quick)))
    ours = UNet(dict(theirs.config))
    ours.load_state_dict(theirs.state_dict(), assign=True)  # one copy of the weights
    kernels.accelerate(ready(ours))  # diffusers gains by memory that is used again, too
    side = 16 if quick else 64
    x, text = torch.randn(2, 4, side, side).to(memory_format=LAST), torch.randn(2, 77, 768)
    time = torch.tensor([500.0, 500.0])

    def by_rows() -> Tensor:
        return torch.cat([ours(x[i : i + 1], time[:1], text[i : i + 1]) for i in range(2)])

    def batch() -> Tensor:
        return theirs(x, time, text, return_dict=False)[0]

    difference = off(by_rows(), batch())
    calls: dict[str, Callable[[], float]] = {
        "diffusers": lambda: seconds(batch),
        "pictura": lambda: seconds(by_rows),
    }
    took = in_turn(calls, 2 if quick else 4)
    kept = sum(m.kept[1].nbytes for m in ours.modules() if getattr(m, "kept", None))
    return {
        "seconds": {name: spread(values, 3) for name, values in took.items()},
        "ratio": round(median(took["diffusers"]) / median(took["pictura"]), 3),
        "largest_difference": difference,
        "transformed_weights_gb": round(kept / 1e9, 2),
    }


def vae(name: str, quick: bool) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    torch.manual_seed(0)
    if name == "diffusers":
        from diffusers import AutoencoderKL as Theirs

        theirs = ready(Theirs(**vae_config(quick)))
        return theirs, lambda z: theirs.decode(z, return_dict=False)[0]
    ours = kernels.accelerate(ready(AutoencoderKL(vae_config(quick))), reuse=False)
    return ours, ours.decode  # type: ignore[return-value]


def one_decode(name: str, quick: bool) -> None:
    """What the fresh process does: decode twice, tell the seconds of the second and the peak of memory."""
    import resource

    _, decode = vae(name, quick)
    z = torch.randn(1, 4, *((16, 16) if quick else (64, 64)))
    decode(z)
    took = seconds(lambda: decode(z))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": took, "gb": peak / 1e9}))


def decode(quick: bool) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), *(["--quick"] if quick else []), "--decode"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    told: dict[str, list[dict[str, float]]] = {"diffusers": [], "pictura": []}
    for _ in range(2 if quick else 3):
        for name, values in told.items():
            run = subprocess.run([*command, name], env=environment, capture_output=True, text=True)
            if run.returncode:
                raise SystemExit(f"a measured process failed:\n{run.stderr[-3000:]}")
            values.append(json.loads(run.stdout.splitlines()[-1]))
    (theirs, right), (ours, mine) = vae("diffusers", quick), vae("pictura", quick)
    ours.load_state_dict(theirs.state_dict())
    z = torch.randn(1, 4, 16, 16) if quick else torch.randn(1, 4, 64, 64)

    def middle(name: str, key: str) -> float:
        return median(value[key] for value in told[name])

    return {
        "seconds": {name: spread([v["seconds"] for v in values], 3) for name, values in told.items()},
        "peak_gb": {name: spread([v["gb"] for v in values], 3) for name, values in told.items()},
        "ratio": round(middle("diffusers", "seconds") / middle("pictura", "seconds"), 3),
        "memory": round(middle("pictura", "gb") / middle("diffusers", "gb"), 3),
        "largest_difference": off(mine(z), right(z)),
    }


def main() -> None:
    if "--decode" in sys.argv:
        with torch.no_grad():
            return one_decode(sys.argv[-1], "--quick" in sys.argv)
    options, before = arguments(__doc__ or ""), machine()
    with torch.no_grad():
        found = {"decode": decode(options.quick), "step": step(options.quick)}
    results = {
        "threads": torch.get_num_threads(),
        **found,
        "rates": {of: dict(kernels.rates(of)) for of in ("products", "convolutions", "attentions")},
        "targets": {
            f"step {TARGETS['step']}x": found["step"]["ratio"] >= TARGETS["step"],
            f"decode {TARGETS['decode']}x": found["decode"]["ratio"] >= TARGETS["decode"],
            f"decode in {TARGETS['memory']}x the memory": found["decode"]["memory"] <= TARGETS["memory"],
            "the same picture to 1e-4": max(f["largest_difference"] for f in found.values()) <= 1e-4,
        },
    }
    write("stable_diffusion", results, options, before)


if __name__ == "__main__":
    main()
