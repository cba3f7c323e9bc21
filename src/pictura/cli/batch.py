"""`pictura batch`: a file of prompts in, a data set of pictures out."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pictura.cli.generate import RESERVED
from pictura.cli.options import (
    GuidanceOption,
    ModelOption,
    NegativeOption,
    SamplerOption,
    SettingsOption,
    StepsOption,
    StrictOption,
    decimal,
    whole,
)
from pictura.cli.service import ApiOption, BaseUrlOption, KeyOption, service_settings
from pictura.cli.show import progress, say
from pictura.cli.wording import Style, Styles, Syntax, Wildcards, text_options
from pictura.options import parsed_options

if TYPE_CHECKING:
    from pictura.batch import Report


def batch(
    prompts: Annotated[
        str,
        typer.Argument(
            metavar="PROMPTS",
            help="Text (a prompt a line), .jsonl, .csv, .tsv, .parquet, a .toml template, or a data set.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="A new folder, or one that the same command began.")
    ],
    model: ModelOption = "scenes",
    images: Annotated[int, whole("Pictures for each row.", "--num", "-n")] = 1,
    seed: Annotated[int | None, whole("Seed of the first row; row i has seed + i.")] = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    sampler: SamplerOption = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Width and height in pixels.")] = None,
    negative: NegativeOption = None,
    style: Style = None,
    styles: Styles = None,
    wildcards: Wildcards = None,
    prompt_syntax: Syntax = None,
    option: SettingsOption = None,
    strict: StrictOption = True,
    format: Annotated[
        str, typer.Option(help="folder (PNG files and metadata.jsonl), parquet, webdataset or datasets.")
    ] = "folder",
    shard: Annotated[int, whole("Pictures in one file of the other formats.")] = 1000,
    best_of: Annotated[int, whole("Make so many for each picture, keep the best.")] = 1,
    scorer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Score every picture; the first chooses the best."),
    ] = None,
    min_score: Annotated[float | None, decimal("Drop pictures that the first scorer likes less.")] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="NAME", help="Drop what this filter refuses, such as blank."),
    ] = None,
    dedup: Annotated[
        str | None,
        typer.Option(
            metavar="HOW", help="Drop pictures equal to an earlier one: exact or perceptual[:BITS]."
        ),
    ] = None,
    column: Annotated[str | None, typer.Option(metavar="NAME", help="The column of prompts.")] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="The split of a data set.")] = None,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The Ray cluster; without it one on this machine.")
    ] = None,
    actors: Annotated[int | None, whole("Models on the cluster; one for each GPU or CPU.")] = None,
    batch_size: Annotated[int, whole("Pictures worked on at once by a model.")] = 16,
    api: ApiOption = None,
    base_url: BaseUrlOption = None,
    api_key_env: KeyOption = None,
    concurrency: Annotated[int | None, whole("Requests to a remote model at once.")] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Make pictures that failed before once more.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as a line of JSON on standard output.")
    ] = False,
) -> int:
    """Make a data set of pictures from many prompts.

    Each picture is made exactly once: stop or kill it at any moment and give the same command again. Rows
    that cannot be read or drawn are listed in DIR/failures.jsonl, and the exit status is 1.
    """
    from pictura.batch import follow

    extra = parsed_options(option or (), RESERVED) | text_options(style, prompt_syntax, None)
    schedule = extra.pop("schedule", None)
    settings: dict[str, Any] = {
        "num_images": images,
        "seed": seed,
        "num_steps": steps,
        "guidance_scale": guidance,
        "sampler": sampler,
        "schedule": schedule,
        "size": size,
        "negative_prompt": negative,
        "options": extra,
        "strict": strict,
        "format": format,
        "shard": shard,
        "best_of": best_of,
        "scorers": scorer or (),
        "min_score": min_score,
        "filters": filters or (),
        "dedup": dedup,
        "column": column,
        "split": split,
        "wildcards": wildcards,
        "styles": styles,
        "engine": engine,
        "address": address,
        "actors": actors,
        "batch_size": batch_size,
        "retry_failed": retry_failed,
        "service": service_settings(api, base_url, api_key_env),
    }
    if concurrency is not None:
        settings["service"]["concurrency"] = concurrency
    steps_done = follow(prompts, out, model=model, **settings)
    settled = 0
    with _polite(), progress("batch", None, sys.stderr, rate=True) as bar:
        while True:
            try:
                so_far = next(steps_done)
            except StopIteration as end:
                result: Report = end.value
                break
            bar.total(so_far.total)
            bar.advance(so_far.settled - settled)
            settled = so_far.settled
    _tell(result, as_json)
    return 1 if result.failed else 0


@contextmanager
def _polite() -> Iterator[None]:
    """SIGTERM, as schedulers send it, ends a batch as Ctrl-C does: what is finished is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(result: Report, as_json: bool) -> None:
    told = f"{result.kept} pictures are in {result.out}"
    told += (
        f", {result.made} of {result.total} made now in {result.seconds:.1f} s ({result.rate:.1f} a second)"
    )
    told += f"; {result.dropped} dropped" * bool(result.dropped)
    if result.failed:
        told += f"; {result.failed} failed, see {result.failures}; --retry-failed makes them once more"
    say(told)
    if as_json:
        names = ("total", "kept", "dropped", "failed", "made", "resumed")
        line = {name: getattr(result, name) for name in names}
        line |= {"out": str(result.out), "seconds": round(result.seconds, 3)}
        line["failures"] = None if result.failures is None else str(result.failures)
        print(json.dumps(line), flush=True)
