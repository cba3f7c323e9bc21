"""What docs/performance.md says of batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from _tables import shown, table, verdict


def batch(r: Mapping[str, Any]) -> str:
    rows = [[name, shown(rate)] for name, rate in r["pictures_per_second"].items()]
    whole = [[name, shown(seconds, " s")] for name, seconds in r["whole_run_seconds"].items()]
    rates = r["ray_pictures_per_second"]
    one = rates["1"]["median"]
    actors = [[count, shown(rate), f"{rate['median'] / one:.2f}"] for count, rate in rates.items()]
    return f"""## Data sets of pictures

{r["pictures"]} pictures of the built-in model, {r["steps"]} steps, one thread; the batch fsyncs each.
diffusers' pipeline has hardly a parameter: its figure is what a loop costs.

{table(["", "pictures a second"], rows)}

The batch does {r["of_the_model"]:.2f} of what the model does alone. Whole runs, each in a process that
loads the model first:

{table(["", "seconds"], whole)}

distilabel, with the same model inside, takes {r["times_distilabel"]:.2f} times as long. On a Ray cluster on
this machine, one thread an actor, from the first picture on:

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
