"""Step savings on trained weights: what each option leaves out, the time it saves, what it costs in pictures.

Two small models that this script trains itself (`_trained.py`) and the built-in one. Pictures are compared
with those of the run that leaves nothing out, same seeds; beside it stands what as many fewer steps as take
the same time would have cost. Times are of one thread, settings in turn.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _trained
import numpy as np
import torch
from _common import arguments, in_turn, machine, seconds, spread, write
from numpy.typing import NDArray
from torch import nn

import pictura
from pictura.evaluation.composition import judge
from pictura.evaluation.suites import suite_named
from pictura.families.stable_diffusion_3.model import JointBlock
from pictura.formats import preset
from pictura.levels import Flow, Level
from pictura.nn.resnet import ResnetBlock
from pictura.nn.transformer import ModulatedBlock
from pictura.samplers import schedules

Array = NDArray[np.float64]
STEPS = {"stable_diffusion": 30, "stable_diffusion_3": 28, "scenes": 12}
INTERVALS = ((0.0, 0.8), (0.0, 0.5), (0.2, 1.0), (0.2, 0.8))  # shares of the steps that are guided
CACHES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "stable_diffusion": {"deep_cache": (2, 3, 5)},
    "stable_diffusion_3": {"block_cache": (0.05, 0.1, 0.2)},
}
READS: Mapping[str, Mapping[str, Any]] = {  # as much text as was learned with
    "stable_diffusion": {},
    "stable_diffusion_3": {"max_sequence_length": _trained.LENGTH["stable_diffusion_3"] - 77},
}
SCALE = 2.0  # of guidance with the built-in model, which by itself has none


def main() -> None:
    options, before = arguments(__doc__ or "", trains=True), machine()
    torch.set_num_threads(2)
    with tempfile.TemporaryDirectory() as place:
        folders = _trained.models(options.models or Path(place), options.quick)
        torch.set_num_threads(1)  # time is work then, however it is dealt out
        results = {name: of_trained(name, folder, options.quick) for name, folder in folders.items()}
        results["scenes"] = of_scenes(options.quick)
    write("savings", results, options, before)


def of_trained(name: str, folder: Path, quick: bool) -> dict[str, Any]:
    model = pictura.TextToImage.from_preset(folder, dtype="float32", device="cpu", history=False)
    steps = 4 if quick else STEPS[name]
    request = model.generate("a cat", num_steps=steps, seed=0, **READS[name]).request
    levels = model.family.plan(request).levels  # type: ignore[attr-defined]
    settings = guided(levels, steps)
    for option, values in CACHES[name].items():
        settings |= {f"{option} {value:g}": {option: value} for value in values}
    told = _trained.prompts(2 if quick else 32)
    found = Saved(model, told, steps, READS[name]).compare(settings, 1 if quick else 3)
    trained = dict(preset.read(folder).provenance)
    return {"trained": trained, **found, "guidance_scale": request.guidance_scale}


def of_scenes(quick: bool) -> dict[str, Any]:
    model = pictura.TextToImage.from_preset("scenes", dtype="float32", device="cpu", history=False)
    steps = 2 if quick else STEPS["scenes"]
    told = [case.prompt for case in suite_named("scenes")(1 if quick else 16)]
    schedule = schedules.named(str(model.family.defaults()["schedule"]))
    settings = guided(schedule(Flow(), steps), steps) | {"no guidance": {"guidance_scale": 1.0}}
    saved = Saved(model, told, steps, {"guidance_scale": SCALE})
    return {**saved.compare(settings, 1 if quick else 3, judged=True), "guidance_scale": SCALE}


def guided(levels: Sequence[Level], steps: int) -> dict[str, dict[str, Any]]:
    """The options by which steps from one share of all to another are guided."""
    found = {}
    for start, end in INTERVALS:
        first, last = round(start * steps), round(end * steps)
        given = {"guidance_low": math.ceil(1e4 * levels[last].ratio) / 1e4 if last < steps else 0.0}
        if first:
            given["guidance_high"] = math.ceil(1e4 * levels[first].ratio) / 1e4
        found[f"guidance from {100 * start:.0f} to {100 * end:.0f}% of the steps"] = given
    return found


class Saved:
    """One model, its prompts, and what is the same in all runs."""

    def __init__(
        self, model: pictura.TextToImage, told: Sequence[str], steps: int, common: Mapping[str, Any]
    ) -> None:
        self.model, self.told, self.steps, self.common = model, list(told), steps, dict(common)
        self.fewer: dict[int, Array] = {}

    def draw(self, *, steps: int | None = None, count: int | None = None, **options: Any) -> Array:
        """(n, h, w, 3), 0 to 255."""
        pictures = self.model.generate(
            self.told[:count], seed=7, num_steps=steps or self.steps, **self.common | options
        )
        return np.asarray(pictures, float)

    def compare(
        self, settings: Mapping[str, Mapping[str, Any]], runs: int, judged: bool = False
    ) -> dict[str, Any]:
        """By setting: options, share of blocks left out, seconds a picture, the ratio of time to the full
        run, and how far pictures are from its, as they are with as many steps as take that time."""
        all_of_them = {"everything": {}, **settings}
        blocks, pictures = {}, {}
        for name, options in all_of_them.items():
            with counted(self.model.backbone) as calls:
                pictures[name] = self.draw(**options)
            blocks[name] = sum(calls)
        few = min(len(self.told), 2)
        taken = in_turn(
            {
                name: (lambda o=options: seconds(lambda: self.draw(count=few, **o)) / few)
                for name, options in all_of_them.items()
            },
            runs,
        )
        exact, found = pictures["everything"], {}
        for name, options in all_of_them.items():
            ratios = [one / full for one, full in zip(taken[name], taken["everything"], strict=True)]
            one: dict[str, Any] = {
                "options": dict(options),
                "left_out": round(1 - blocks[name] / blocks["everything"], 4),
                "seconds": spread(taken[name]),
                "of_full": spread(ratios, 3),
            }
            if judged:
                one["right"] = self.right(pictures[name])
            if options:
                steps = max(1, min(self.steps, round(one["of_full"]["median"] * self.steps)))
                one |= distance(pictures[name], exact)
                one["fewer_steps"] = {"steps": steps, **distance(self.with_fewer(steps), exact)}
                if judged:
                    one["fewer_steps"]["right"] = self.right(self.with_fewer(steps))
            found[name] = one
        return {"steps": self.steps, "prompts": len(self.told), "settings": found}

    def with_fewer(self, steps: int) -> Array:
        if steps not in self.fewer:
            self.fewer[steps] = self.draw(steps=steps)
        return self.fewer[steps]

    def right(self, pictures: Array) -> int:
        """How many show all that was asked for and nothing else, as the detector sees it."""
        seen = zip(pictures.astype(np.uint8), self.told, strict=True)
        return sum(judge(picture, prompt, checker="detector").exact for picture, prompt in seen)


def distance(pictures: Array, exact: Array) -> dict[str, Any]:
    """PSNR in decibels, picture by picture, 99 for equal ones; the relative error of all, of -1 to 1."""
    errors = ((pictures - exact) ** 2).mean((1, 2, 3))
    psnr = [min(10 * math.log10(255**2 / max(float(one), 1e-6)), 99.0) for one in errors]
    scale = np.linalg.norm(exact / 127.5 - 1)
    return {
        "psnr": spread(psnr, 1),
        "relative_error": round(float(np.linalg.norm((pictures - exact) / 127.5) / scale), 4),
    }


@contextmanager
def counted(networks: nn.ModuleDict) -> Iterator[list[int]]:
    """How many rows each block of a denoising network was computed for, time after time."""
    calls: list[int] = []
    bodies = [networks[name] for name in ("unet", "transformer", "denoiser") if name in networks]
    hooks = [
        module.register_forward_hook(lambda _, inputs, answer: calls.append(len(inputs[0])))
        for body in bodies
        for module in body.modules()
        if isinstance(module, BLOCKS)
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


BLOCKS = (ResnetBlock, JointBlock, ModulatedBlock)


if __name__ == "__main__":
    main()
