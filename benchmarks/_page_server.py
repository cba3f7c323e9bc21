"""The page's section on the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables import shown, table


def server(r: Mapping[str, Any]) -> str:
    load, callers = r["load"], [str(count) for count in r["callers"]]
    most = callers[-1]

    def rate(name: str, count: str) -> float:
        return float(load[name][count]["pictures_per_second"]["median"])

    rows = [
        [
            name,
            count,
            shown(one["pictures_per_second"]),
            f"{one['p50']['median']:.2f} s",
            f"{one['p99']['median']:.2f} s",
        ]
        for name, counts in load.items()
        for count, one in counts.items()
    ]
    many = "16" if "16" in callers else most
    gains = {count: rate("pictura, scenes", count) / rate("pictura, scenes", "1") for count in (many, most)}
    gain = gains[many]
    beside = {count: rate("pictura", count) / rate("FastAPI and diffusers", count) for count in callers}
    ratios = ", ".join(f"{ratio:.2f} at {count}" for count, ratio in beside.items())
    cost = 1000 * (r["one_step"]["http"]["median"] - r["one_step"]["here"]["median"])
    searches = [[name, shown(one, " ms")] for name, one in r["search_ms"].items()]
    slowest = max(one["median"] for one in r["search_ms"].values())
    same = "the same pixels" if r["largest_difference"] == 0 else f"off by {r['largest_difference']} of 255"
    reached = "reached" if gain >= 3 else "not reached on this machine, whose processors are busy then"
    preview = shown({k: 1000 * v for k, v in r["first_preview"].items()}, " ms")
    return f"""## The server

`pictura serve` and what people write first, FastAPI around a pipeline of diffusers with a lock. Both have the
same small Stable Diffusion (random weights) and get the same mixed requests: 6 to 13 steps, guidance 1 to 4.
One request drawn by both gave {same}. Pictura's pictures are on the disk and in the history before
they are answered; the other server keeps nothing. "with previews" submits a job, listens to its events and
fetches the file; the others are one call in the form of OpenAI.

{table(["", "callers", "pictures a second", "p50", "p99"], rows)}

For each picture of FastAPI and diffusers Pictura makes, by callers: {ratios}.
Whoever is alone waits for the network's passes, of which diffusers deals each to all processors and Pictura
a row to one, so that a picture has the same bits in any company. {many} mixed requests of the built-in model
at once are made **{gain:.2f} times** as fast as one at a time, {most} {gains[most]:.2f} times; the 3x that
was hoped for is {reached}.

The first preview comes {preview} after the POST. A picture of one step takes {cost:.0f} ms longer over HTTP
than in the process that asks: the job is stored, claimed, kept with its file, found again.

With {r["rows"]:,} pictures in the history a search answers within {slowest:.0f} ms (GET /api/images):

{table(["looked for", "whole answer"], searches)}
"""
