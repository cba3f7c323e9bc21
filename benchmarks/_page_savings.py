"""What docs/performance.md says of options that leave parts of steps out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables import table

TITLES = {
    "stable_diffusion": "UNet that predicts velocities, as Stable Diffusion 2's",
    "stable_diffusion_3": "MMDiT that predicts flows, as Stable Diffusion 3.5's",
    "scenes": "The built-in model",
}
COLUMNS = ["", "options", "left out", "time", "PSNR", "error", "same time in fewer steps"]


def decibels(values: Mapping[str, float]) -> str:
    return f"{values['median']:.1f} dB ({values['min']:.1f} to {values['max']:.1f})"


def setting(name: str, one: Mapping[str, Any], prompts: int) -> list[str]:
    options = ", ".join(f"`{option}={value:g}`" for option, value in one["options"].items())
    right = [f"{one['right']} of {prompts}"] if "right" in one else []
    if "psnr" not in one:
        return [name, options, "-", f"{one['seconds']['median']:.2f} s", "-", "-", "-", *right]
    fewer = one["fewer_steps"]
    instead = f"{fewer['steps']}: {decibels(fewer['psnr'])}, {100 * fewer['relative_error']:.1f}%"
    right = [f"{one['right']} of {prompts}; {fewer['right']} in fewer steps"] if right else []
    off, time = f"{100 * one['relative_error']:.1f}%", one["of_full"]
    took = f"{time['median']:.2f} ({time['min']:.2f} to {time['max']:.2f})"
    return [name, options, f"{100 * one['left_out']:.0f}%", took, decibels(one["psnr"]), off, instead, *right]


def model(name: str, r: Mapping[str, Any]) -> str:
    settings, prompts = r["settings"], r["prompts"]
    rows = [setting(key, one, prompts) for key, one in settings.items()]
    judged = ["seen right"] if "right" in settings["everything"] else []
    compared = {key: (one, one["fewer_steps"]) for key, one in settings.items() if "psnr" in one}
    psnr = [key for key, (a, b) in compared.items() if a["psnr"]["median"] > b["psnr"]["median"]]
    error = [key for key, (a, b) in compared.items() if a["relative_error"] < b["relative_error"]]
    trained = ""
    if "trained" in r:
        network, autoencoder = r["trained"]["network"], r["trained"]["autoencoder"]
        trained = f""" {network["parameters"]:,} parameters with its encoders, trained for {network["steps"]}
steps (loss {network["first_loss"]:.2f} to {network["last_loss"]:.2f}; the autoencoder's
{autoencoder["first_loss"]:.3f} to {autoencoder["last_loss"]:.3f})."""
    return f"""**{TITLES[name]}.**{trained} {r["steps"]} steps, guidance {r["guidance_scale"]:g},
{prompts} prompts.

{table([*COLUMNS, *judged], rows)}

Nearer to the full run than fewer steps of the same time, by the median of PSNR:
{", ".join(psnr) or "none"}; by the error of all pictures together, which the worst ones make:
{", ".join(error) or "none"}.
"""


def savings(r: Mapping[str, Any]) -> str:
    return f"""## Leaving parts of steps out

What `guidance_low` and `guidance_high` (no second question outside them), `deep_cache` and `block_cache` save
and cost on trained weights. The first two models are small ones that the script trains itself on 64 px
scenes: they are far smaller and worse than published ones, whose figures will be others. Left out: of the
blocks that the full run computes. Time: of the full run's, one thread, settings in turn. PSNR, median (least
to greatest of the pictures), and relative error against the full run with the same seeds, and the same of a
run with only as many steps as take that time. A guidance interval is another guidance rather than an
approximation: its pictures are others, which may be as right.

{chr(10).join(model(name, one) for name, one in r.items())}"""
