"""Write docs/performance.md from the JSON results; the last step of `make bench`.

Every figure on the page is read from a result. What the page concludes in words is chosen by the figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from _common import RESULTS, ROOT
from _page_batch import batch, scale  # noqa: F401 (found by their names)
from _page_history import history  # noqa: F401
from _page_savings import savings  # noqa: F401
from _page_server import server  # noqa: F401
from _page_unets import unets  # noqa: F401
from _tables import shown, table, verdict

NAMES = (
    "startup",
    "networks",
    "engine",
    "training",
    "samplers",
    "blocks",
    "remote",
    "batch",
    "scale",
    "history",
    "server",
    "stable_diffusion",
    "unets",
    "savings",
)
PAGE = ROOT / "docs" / "performance.md"


def startup(r: Mapping[str, Any]) -> str:
    png, ours = r["png_seconds"], r["png_seconds"]["pictura"]["median"]
    rest = ours - png["import torch"]["median"]
    rows = [
        ["`pictura --help`", shown(r["help_seconds"], " s")],
        ["Python that does nothing", shown(r["bare_python_seconds"], " s")],
        [f"`pictura generate`, {r['steps']} steps, to the PNG", shown(png["pictura"], " s")],
        [
            f"diffusers pipeline of {r['diffusers_parameters']:,} parameters, {r['steps']} steps, to the PNG",
            shown(png["diffusers"], " s"),
        ],
        [
            "diffusers DDIMPipeline, which reads no text, 32 px, as many steps",
            shown(png["diffusers, no text"], " s"),
        ],
        ["`import torch` alone", shown(png["import torch"], " s")],
    ]
    targets = [[name, verdict(held)] for name, held in r["targets"].items()]
    return f"""## Cold starts

{table(["fresh process", "seconds"], rows)}

From process start to the PNG, the built-in model takes **{r["png_ratio"]:.2f}** of the time of a diffusers
pipeline that reads text and has hardly a parameter, and {r["png_ratio_no_text"]:.2f} of one that does not
even read text. Of its {ours:.2f} s, {png["import torch"]["median"]:.2f} s are `import torch` and {rest:.2f}
s all the rest: reading the command, loading, drawing, writing. The help imports no torch (checked in the
same run).

{table(["target", "held"], targets)}
"""


def networks(r: Mapping[str, Any]) -> str:
    found = r["by_rows"]
    names = list(dict.fromkeys(name for one in found.values() for name in one["rows_per_second"]))
    rows, facts = [], []
    for name in names:
        cells = []
        for one in found.values():
            rate = one["rows_per_second"].get(name)
            cells.append(f"{rate['median']:g} ({one['of_eager'][name]:.2f}x)" if rate else "failed")
        waits = [one["preparation_seconds"][name] for one in found.values()]
        off = max(one["largest_difference"].get(name, 0.0) for one in found.values())
        rows.append([name, *cells])
        facts.append([name, f"{min(waits):g} to {max(waits):g} s", f"{off:.1g}"])
    failed = {f"{name}: {why}" for one in found.values() for name, why in one["failed"].items()}
    trouble = "".join(f"\nFailed: {line}.\n" for line in sorted(failed))
    return f"""## One network, several ways to run it

Rows (network evaluations) a second of the denoiser of `scenes` ({r["parameters"]:,} parameters, float32) on
{r["threads"]} threads, by batch size; in brackets, times eager. "eager" is what `generate` runs, whole rows
dealt out to threads; "eager, products shared" is plain torch, where the threads share each product.

{table(["", *(f"{n} rows" if n != "1" else "1 row" for n in found)], rows)}

{table(["", "preparation, for each batch size", "largest difference from eager"], facts)}
{trouble}
{choice(found)}
"""


def choice(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What follows, in words."""
    told = []
    for name in ("torch.compile", "AOTInductor", "onnxruntime"):
        ratios = [one["of_eager"][name] for one in found.values() if name in one["of_eager"]]
        if ratios:
            told.append(f"{name} {min(ratios):.2f} to {max(ratios):.2f} times eager")
    if not told:
        return "Only eager was measured."
    return f"""**What we run, and why.** Measured: {"; ".join(told)}.

`generate` runs eager all the same. A compiled network is one more file to make and keep for each batch size
and machine, or a wait of the length above in every process, against pictures that take a second or two; its
last bits are others, and that a seed gives the same picture everywhere rests on one way to compute it. It
would be the second code base that was to be avoided. Training runs one shape for an hour: there a recipe's
`compile = true` uses torch.compile."""


def engine(r: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            shown(rate),
            r["passes_and_rows"][name]["passes"],
            r["passes_and_rows"][name]["rows"],
            f"{r['largest_difference_from_solve'][name]:.1g}",
        ]
        for name, rate in r["pictures_per_second"].items()
    ]
    cost = r["engine_and_sampler_ms_a_row"]
    saved = 1 - r["passes_and_rows"]["together"]["rows"] / r["passes_and_rows"]["solve"]["rows"]
    narrow = r["pictures_per_second"]["together, 4 rows"]["median"]
    narrow /= r["pictures_per_second"]["one at a time"]["median"]
    same = r["largest_difference_from_solve"]["together, 4 rows"] == 0
    spent = cost["median"] * r["passes_and_rows"]["together"]["rows"] / r["requests"] / 1000
    share = spent * r["pictures_per_second"]["together"]["median"]
    return f"""## Many requests at once

{r["requests"]} requests with eight samplers, 4 to 11 steps, guidance 1 to 4 and different seeds, on
{r["threads"]} threads.

{table(["", "pictures a second", "passes", "rows", "difference from `solve`"], rows)}

Together they are **{r["ratio"]:.2f} times** as fast as one at a time, each on an engine of its own, and
{r["ratio_to_solve"]:.2f} times as fast as `solve`, which has no engine. The 3x that was hoped for is
{"reached" if r["ratio"] >= 3 else "not reached on this machine"}. Sharing passes saves {100 * saved:.0f} %
of the rows (captions that are alike and the empty one are read once); the rest of the gain is that no core
waits: with guidance a picture alone asks two rows at a time and without it one, and a row is one thread's.
The built-in models answer up to 32 rows a pass; with the engine's own cap of 4, which is for networks that do
not deal rows out to threads, it is {narrow:.2f} times as fast as one at a time. In this run
{"no value of any picture differed" if same else "last bits differed"}. Engine, guidance and samplers take
{cost["median"]:g} ms a row ({cost["min"]:g} to {cost["max"]:g}), measured with a network that answers at
once: {100 * share:.0f} % of the time.
"""


def training(r: Mapping[str, Any]) -> str:
    rows = [
        [name, shown(rate), shown({k: 100 * v for k, v in r["waiting_share"][name].items()}, " %")]
        for name, rate in r["samples_per_second"].items()
    ]
    return f"""## Training

The built-in architecture, batch {r["batch"]}, {r["dtype"]}, not compiled, one thread a process; from the
trainer's own log.

{table(["", "samples a second", "waiting for data"], rows)}

Two processes do {r["two_processes_over_one"]:.2f} times the work of one. The renderer alone draws
{shown(r["rendered_scenes_per_second"])} scenes a second on one core.
"""


def samplers(r: Mapping[str, Any]) -> str:
    rows = [
        [name, shown(one["pictura"]), shown(one["diffusers"]), f"{r['of_diffusers'][name]:.2f}"]
        for name, one in r["microseconds_an_evaluation"].items()
    ]
    ratios = r["of_diffusers"].values()
    return f"""## What a step costs besides the network

Microseconds an evaluation with guidance, {r["steps"]} steps, one thread, a network of one small convolution:
ours through sampler, guidance and engine, theirs a scheduler in the loop that diffusers documents.

{table(["sampler", "Pictura", "diffusers", "ratio"], rows)}

Ratios {min(ratios):.2f} to {max(ratios):.2f}.
"""


def remote(r: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            shown(r["rows_per_second"][name]),
            f"{r['of_possible'][name]:.1%}",
            f"{r['of_bare'][name]:.1%}",
            shown(r["microseconds_a_row"][name]),
        ]
        for name in r["rows_per_second"]
    ]
    memory = r["mebibytes"]
    grown = memory["after"] - memory["before"]
    rates = {name: values["median"] for name, values in r["rows_per_second"].items()}
    held = [
        [
            f"`{name}`",
            *(verdict(rates[name] >= 0.95 * most) for most in (r["possible"], rates["bare sockets"])),
        ]
        for name in ("astream", "stream")
    ]
    cores = r["cores"]
    apart = (
        f"Clients had {cores['clients']} cores, the server {cores['server']} others, on which it never slept."
        if cores["apart"]
        else "Clients and server shared the cores."
    )
    if r["nice"]:
        apart += f" Both ran with niceness {r['nice']}, before whatever else the machine did."
    head = ["client", "rows/s", "of the possible", "of bare sockets", "processor time a row, µs"]
    return f"""## Remote models

{r["at_once"]} requests at once to a server on loopback that answers each in {1000 * r["answer_seconds"]:g} ms
with a small picture: {r["possible"]:,.0f} rows a second are possible. Bare sockets ask and read nothing; the
others read the answer; `astream` and `stream` also complete each request and decode each picture, and in one
row keep each on disk with a database entry, as Python does unless told not to. `pictura batch` writes a data
set, fsynced before it counts as made. Opening
the connections and pauses that end a little late keep everyone below that rate: what can be had is what bare
sockets reach from the same server in the same run. {apart}

{table(head, rows)}

{table(["at least 95 %", "of the possible", "of bare sockets"], held)}

Memory after {r["rows_for_memory"]:,} rows: {memory["after"]} MiB, {grown:+.1f} MiB.
"""


def stable_diffusion(r: Mapping[str, Any]) -> str:
    rows = []
    for part, title in (("step", "guided step (two rows)"), ("decode", "decoding the latent")):
        for name, values in r[part]["seconds"].items():
            peak, compared = shown(r[part]["peak_gb"][name], " GB"), ["", "", ""]
            if name in r[part]["ratio"]:
                ratio, memory = r[part]["ratio"][name], r[part]["memory"][name]
                compared = [f"{ratio:.2f}x", f"{memory:.2f}x", f"{r[part]['difference'][name]:.1g}"]
            rows.append([title, name, shown(values, " s"), peak, *compared])
    targets = [[name, verdict(held)] for name, held in r["targets"].items()]
    products, rates = r["rates"]["products"], r["rates"]["attentions"]
    onednn = products.get("onednn", 0) / products["linear"]
    heads = rates["by head torch.float32"] / rates["fused torch.float32"]
    columns = ["", "", "seconds", "peak memory", "speed", "memory", "difference"]
    return f"""## Stable Diffusion 1.5 at 512 px

Real sizes, random weights, channels last, {r["threads"]} threads, each in a process of its own; speed, memory
and the largest difference (relative to the largest value) are against diffusers in float32.

{table(columns, rows)}

It is done by Winograd convolutions, by products and attention through oneDNN where that is quicker (here
{onednn:.1f} and {heads:.1f} times, measured on first use), by using freed memory again, and by decoding some
rows at a time. bfloat16 is what `dtype=None` chooses for models
of this size where the processor computes it.

{table(["target", "held"], targets)}
"""


def blocks(r: Mapping[str, Any]) -> str:
    rows = []
    for name in r["sd3"]["seconds"]:
        cells = [name]
        for one in (r["sd3"], r["flux"]):
            cells += [shown(one["seconds"][name], " s"), f"{one['times diffusers float32'][name]:g}x"]
            cells.append(f"{one['relative_error'][name]:.1g}")
        rows.append(cells)
    lost = [[name, shown(values, " dB")] for name, values in r["psnr"].items()]
    cache = [[t, f"{v['left_out']:.0%}", f"{v['relative_error']:.1%}"] for t, v in r["block_cache"].items()]
    m = r["memory"]
    pixels, sizes = r["sd3"]["pixels"], [f"{r[name]['parameters'] / 1e6:.0f} M" for name in ("sd3", "flux")]
    return f"""## Blocks of Stable Diffusion 3 and FLUX.1

One evaluation at {pixels} px of three blocks at full width, random weights, {r["threads"]} threads:
SD3 medium ({sizes[0]} parameters) and FLUX.1 ({sizes[1]}, one joint and two single blocks). "Off" is the
distance from diffusers in float32, relative to its answer.

{table(["", "SD3", "", "off", "FLUX", "", "off"], rows)}

PSNR of pictures by the built-in model (trained; 12 steps) against float32, linears of all blocks in:

{table(["", "PSNR"], lost)}

First-block cache (`block_cache`), 28 steps through 12 blocks with random weights, whose first block changes
by half from step to step; trained ones are measured further below:

{table(["tolerance", "steps that left blocks out", "last latent off by"], cache)}

Loading {m["file_gb"]:g} GB of FLUX takes {m["pictura"]["of_the_file"]:.2f} times the file in memory: it is
read, so that a file which changes meanwhile is an error. diffusers maps it, which takes
{m["diffusers"]["of_the_file"]:.2f} times until it is used. With `low_memory=True` a process that evaluates
all of a FLUX of {m["streamed"]["file_gb"]:g} GB in bfloat16 once peaks at
{m["streamed"]["process_gb"]:.2f} GB.
"""


def facts(machine: Mapping[str, Any]) -> Iterator[str]:
    flags = ", ".join(machine["flags"]) or "no vector flags"
    yield f"- processor: {machine['processor']}, {machine['cores']} cores, {flags}"
    yield f"- {machine['system']}, Python {machine['python']}"
    versions = [f"{name} {machine[name]}" for name in ("torch", "diffusers", "onnxruntime")]
    yield f"- {', '.join(versions)}"


def busy(machine: Mapping[str, Any]) -> str:
    load, cores = machine["load"], machine["cores"]
    if load is None or load < 0.3 * cores:
        return ""
    return (
        f"\n*Other work shared the machine (load average {load:g}, {cores} cores for this script): read the "
        "ratios, and the spread, rather than the figures.*\n"
    )


def page(folder: Path) -> str:
    found = {name: json.loads((folder / f"{name}.json").read_text("utf-8")) for name in NAMES}
    machine = found["startup"]["machine"]
    loads = ", ".join(f"{name} {one['machine']['load']}" for name, one in found.items())
    quick = (
        "**Tiny settings: only to see that it runs.**\n\n" if any(o["quick"] for o in found.values()) else ""
    )
    parts = [globals()[name](one["results"]) + busy(one["machine"]) for name, one in found.items()]
    return f"""# Performance

{quick}Written by `make bench`, which runs the scripts in `benchmarks/` and reads their results from
`benchmarks/results/`. What is compared runs in turn, A B A B ..., in one go on one machine; figures are
medians (least to greatest), claims are ratios of medians.

{chr(10).join(facts(machine))}
- load average when each script began (0: quiet, {machine["cores"]}: all cores busy): {loads}

{chr(10).join(parts)}"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/performance.md.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    options.page.write_text(page(options.results), "utf-8")
    print(f"written to {options.page}")


if __name__ == "__main__":
    main()
