"""What docs/performance.md says of batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables import shown, table, verdict


def batch(r: Mapping[str, Any]) -> str:
    found = r["pictures_per_second"]
    rows = [[name, *(shown(rates[name]) for rates in found.values())] for name in found["1"]]
    heads = ["pictures a second with", *(f"{n} thread{'s' * (n != '1')}" for n in found)]
    shares = " and ".join(f"{share:.2f}" for share in r["of_the_model"].values())
    whole = [[name, shown(seconds, " s")] for name, seconds in r["whole_run_seconds"].items()]
    rates = r["ray_pictures_per_second"]
    one = rates["1"]["median"]
    actors = [[count, shown(rate), f"{rate['median'] / one:.2f}"] for count, rate in rates.items()]
    return f"""## Data sets of pictures

{r["pictures"]} pictures, {r["steps"]} steps, of the built-in model and of a tiny Stable Diffusion that has
hardly a parameter, so that what is around it counts. Each picture of a batch is on the disk with all it was
made of before the ledger says so; the loop over diffusers calls the pipeline for each prompt, as people do,
and saves the file.

{table(heads, rows)}

The batch does {shares} of what the model does alone. Whole runs, each in a process that loads the
model first, one thread:

{table(["", "seconds"], whole)}

distilabel, with the same model inside, takes {r["times_distilabel"]:.2f} times as long. On a Ray cluster on
this machine, {r["pictures_on_ray"]} pictures, one thread an actor, from the first picture on:

{table(["actors", "pictures a second", "times one actor"], actors)}
"""


def scale(r: Mapping[str, Any]) -> str:
    memory, resume = r["memory"], r["resume"]
    marks, held = list(memory["mib_at"].values()), verdict(resume["seconds"]["median"] < 2)
    return f"""## A million rows

With a model that answers at once: a batch with {resume["rows"]:,} rows in its ledger goes on, from the
call to the first prompt, in {shown(resume["seconds"], " s")}; under two seconds: {held}. While
{memory["rows"]:,} rows become WebDataset shards, the process holds {marks[1]:g} MiB after a tenth of them and
{marks[-1]:g} MiB at the end; {memory["pictures_per_second"]:g} pictures a second are written and fsynced.
"""
