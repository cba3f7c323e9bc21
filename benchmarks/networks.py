"""Evaluations a second of the denoiser of `scenes`, by batch size: eager, torch.compile, AOTInductor, ONNX.

"eager" is what `generate` runs: rows dealt out to threads, each with its own share of the batch. "eager,
products shared" is plain torch, where all threads share each product. The others are compiled for one batch
size each, with the time that took.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from _common import arguments, in_turn, machine, seconds, spread, write
from torch import Tensor, nn

from pictura.families.scenes.family import Scenes

Inputs = tuple[Tensor, Tensor, Tensor]
Call = Callable[[], Tensor]


class Denoise(nn.Module):
    """The denoiser from picture to picture, as the engine asks it."""

    def __init__(self, family: Scenes) -> None:
        super().__init__()
        self.denoiser = family.denoiser
        self.compute = family._denoise

    def forward(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        return self.compute(x, t, text)


def family(quick: bool) -> Scenes:
    torch.manual_seed(0)
    scenes = Scenes.from_config({"width": 64, "hidden": 96, "depth": 2, "coefficients": 32} if quick else {})
    for p in scenes.denoiser.parameters():
        if p.ndim > 1:
            nn.init.normal_(p, std=0.02)  # zeros as they start would hide differences
    scenes.denoiser.requires_grad_(False).eval()
    return scenes


def inputs(scenes: Scenes, rows: int) -> Inputs:
    g = torch.Generator().manual_seed(rows)
    text = torch.randn(rows, 8, scenes.architecture["width"] + 1, generator=g)
    text[..., -1] = 1
    return torch.randn(rows, 3, 128, 128, generator=g), torch.rand(rows, generator=g), text


def eager(scenes: Scenes, given: Inputs) -> Call:
    x, t, text = given
    return lambda: scenes.evaluate("denoiser", (), x=x, t=t, text=text)


def shared(scenes: Scenes, given: Inputs) -> Call:
    return lambda: Denoise(scenes)(*given)


def compiled(scenes: Scenes, given: Inputs) -> Call:
    torch._dynamo.reset()
    network = torch.compile(Denoise(scenes), dynamic=False)
    network(*given)
    return lambda: network(*given)


def aot(scenes: Scenes, given: Inputs, folder: Path) -> Call:
    program = torch.export.export(Denoise(scenes), given, strict=False)
    package = torch._inductor.aoti_compile_and_package(
        program, package_path=str(folder / f"rows{len(given[0])}.pt2")
    )
    network = torch._inductor.aoti_load_package(package)
    return lambda: network(*given)


def onnx(scenes: Scenes, given: Inputs, folder: Path) -> Call:
    import onnxruntime

    path = str(folder / f"rows{len(given[0])}.onnx")
    names = ["x", "t", "text"]
    torch.onnx.export(Denoise(scenes), given, path, input_names=names, dynamo=True, verbose=False)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def measure(scenes: Scenes, rows: int, options: Any, folder: Path) -> dict[str, Any]:
    given = inputs(scenes, rows)
    makers: dict[str, Callable[[], Call]] = {
        "eager": lambda: eager(scenes, given),
        "eager, products shared": lambda: shared(scenes, given),
        "torch.compile": lambda: compiled(scenes, given),
        "AOTInductor": lambda: aot(scenes, given, folder),
    }
    if find_spec("onnxruntime") and find_spec("onnxscript"):
        makers["onnxruntime"] = lambda: onnx(scenes, given, folder)
    if options.quick:
        del makers["torch.compile"], makers["AOTInductor"]
    calls, prepared, problems = dict[str, Call](), dict[str, float](), dict[str, str]()
    for name, make in makers.items():
        started = time.perf_counter()
        try:
            calls[name] = make()
        except Exception as error:  # a compiler that fails is a result
            problems[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        prepared[name] = round(time.perf_counter() - started, 2)
    with torch.no_grad():
        right = calls["eager"]()
        off = {name: (call() - right).abs().max().item() for name, call in calls.items()}
        runs = 2 if options.quick else max(5, 40 // rows)
        # Called before it is timed: threads of the way before spin for some time and would slow this one.
        took = in_turn({name: lambda c=call: (c(), seconds(c))[1] for name, call in calls.items()}, runs)
    rates = {name: spread([rows / s for s in values], 2) for name, values in took.items()}
    base = rates["eager"]["median"]
    return {
        "rows_per_second": rates,
        "of_eager": {name: round(rate["median"] / base, 3) for name, rate in rates.items()},
        "largest_difference": {name: float(f"{value:.2g}") for name, value in off.items()},
        "preparation_seconds": prepared,
        "failed": problems,
    }


def main() -> None:
    options, before = arguments(__doc__ or ""), machine()
    warnings.filterwarnings("ignore")  # exporters warn about themselves
    scenes = family(options.quick)
    results: dict[str, Any] = {
        "parameters": sum(p.numel() for p in scenes.denoiser.parameters()),
        "threads": torch.get_num_threads(),
        "by_rows": {},
    }
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        for rows in (1, 2) if options.quick else (1, 2, 8, 32):
            results["by_rows"][rows] = measure(scenes, rows, options, Path(name))
            print(rows, results["by_rows"][rows], flush=True)
    write("networks", results, options, before)


if __name__ == "__main__":
    main()
