"""What docs/performance.md says of the UNets of Stable Diffusion 2 and XL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables import shown, table

COLUMNS = ["", "", "seconds", "of all processors", "peak memory", "speed", "by processors", "memory", "off"]


def lines(title: str, r: Mapping[str, Any]) -> list[list[str]]:
    """A line for each way to compute; those that are compared with another end in the figures."""
    found = []
    for name, values in r["seconds"].items():
        compared = ["", "", "", f"{r['difference'][name]:.1g}" if name in r["difference"] else ""]
        if name in r["ratio"]:
            compared[:3] = (f"{r[key][name]:.2f}x" for key in ("ratio", "processor_ratio", "memory"))
        spent = f"{r['processor_seconds'][name]['median']:g} s"
        found.append([title, name, shown(values, " s"), spent, shown(r["peak_gb"][name], " GB"), *compared])
    return found


def unets(r: Mapping[str, Any]) -> str:
    rows = [line for v in ("2.x", "xl") for line in lines(f"{v}, {r[v]['pixels']} px", r[v])]
    return f"""## UNets of Stable Diffusion 2 and XL

One row (half a guided step) at real sizes, random weights, channels last, {r["threads"]} threads, each in
processes of its own. Speed, by the clock and by the time of all processors, and memory are against diffusers
in the same precision, differences against the first line. XL's weights are 10 GB in float32, which is not
measured here.

{table(COLUMNS, rows)}
"""
