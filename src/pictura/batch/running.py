"""A batch from its prompts to its outputs: begun or gone on with, drawn by an engine, kept by the keeper."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

from pictura.batch import local, on_ray, outputs
from pictura.batch.filters import Filter
from pictura.batch.judge import Judge
from pictura.batch.ledger import Ledger
from pictura.batch.plan import Plan, checked
from pictura.batch.sources import open_source
from pictura.batch.store import Store
from pictura.batch.words import styles_digest, wording_of
from pictura.batch.work import Engine, Progress, Report, Work
from pictura.discovery import unknown
from pictura.errors import InputError, ParameterError, shown
from pictura.evaluation.scorers import Scorer
from pictura.inputs import whole
from pictura.request import random_seed
from pictura.text.wildcards import Wildcards

__all__ = ["follow", "run"]

DEFAULT_SCORER = "scene_detector"  # where one must choose among scenes and none is named
WINDOW = 16  # pictures worked on at once, unless said otherwise


def run(prompts: object, out: str | os.PathLike[str], **settings: Any) -> Report:
    """Make a data set; settings as those of `follow`. Giving the same again goes on with what is not done."""
    steps = follow(prompts, out, **settings)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            done: Report = end.value
            return done


def follow(
    prompts: object,
    out: str | os.PathLike[str],
    *,
    model: Any = "scenes",
    seed: int | None = None,
    num_images: int = 1,
    num_steps: int | None = None,
    guidance_scale: float | None = None,
    size: tuple[int, int] | str | None = None,
    sampler: str | None = None,
    schedule: str | None = None,
    negative_prompt: str | None = None,
    strict: bool = True,
    best_of: int = 1,
    scorers: Sequence[Scorer | str] = (),
    filters: Sequence[Filter | str] = (),
    min_score: float | None = None,
    dedup: str | None = None,
    format: str = "folder",
    shard: int = 1000,
    column: str | None = None,
    split: str | None = None,
    wildcards: str | os.PathLike[str] | None = None,
    styles: str | os.PathLike[str] | None = None,
    retry_failed: bool = False,
    engine: str = "local",
    address: str | None = None,
    actors: int | None = None,
    batch_size: int = WINDOW,
    options: Mapping[str, Any] | None = None,
    service: Mapping[str, Any] | None = None,
) -> Generator[Progress, None, Report]:
    """`run`, telling how far it is.

    prompts: see `open_source`. model: a preset, or a `TextToImage`. seed: of the first picture; by default a
    random one, which the folder remembers. num_images: for each row. Parameters are for rows that do not say
    otherwise themselves. best_of, scorers: make so many for each picture and keep the one that the first
    scorer likes best; there is one for scenes. filters: see `pictura.batch.filters`. dedup: "exact" or
    "perceptual[:BITS]"; the first of equals is kept. retry_failed: make failed pictures once more. engine:
    "local", or "ray" with the `address` of a cluster and a number of `actors`. batch_size: pictures worked on
    at once. service: what `from_preset` is told of a remote model, such as base_url, api_key and concurrency;
    never written down.
    wildcards: a folder with the lines that `__name__` in a prompt stands for; styles: a file of your own
    styles. What is in them is part of the plan.

    ParameterError, FileError and PresetError before any work; FileError where the disk is full. A picture
    that cannot be made is listed in failures.jsonl and does not end the run.
    """
    started = time.perf_counter()
    judge = Judge(scorers or [DEFAULT_SCORER] * (best_of != 1), filters, min_score)
    wanted: dict[str, Any] = {
        "num_images": num_images,
        "parameters": {
            "num_steps": num_steps,
            "guidance_scale": guidance_scale,
            "size": size,
            "sampler": sampler,
            "schedule": schedule,
            "negative_prompt": negative_prompt,
            "options": dict(options or {}),
        },
        "strict": strict,
        "best_of": best_of,
        "scorers": tuple(judge.scorers),
        "filters": tuple(judge.filters),
        "min_score": min_score,
        "dedup": dedup,
        "format": format,
        "shard": shard,
        "wildcards": None if wildcards is None else Wildcards(wildcards).digest(),
        "styles": None if styles is None else styles_digest(styles),
    }
    settings = checked(wanted, seed=seed, formats=outputs.names())
    if outputs.load(format).shard is None:
        settings["shard"] = 0
    window = whole("batch_size", batch_size, 4096)
    engines = _engine(engine, window, address, actors)
    source = open_source(prompts, column, split)
    if service and engine != "local":
        raise ParameterError("service is for engine 'local'; leave one of them out", parameter="service")
    if next(source.rows(), None) is None:
        raise InputError(f"{source.name} holds no prompts; give at least one")
    network = _model(model, service or {})
    if best_of > 1 and not scorers and getattr(network, "family_name", None) != "scenes":
        message = f"best_of needs a scorer, and the built-in one reads scenes; name one for {network.name!r}"
        raise ParameterError(message, parameter="scorers")
    seeded = _takes_seeds(network, seed)
    with closing(Store(out)) as store:
        before = store.before()
        same = before is not None and before.source == source.digest
        plan = Plan(
            source=source.digest,
            rows=before.rows if before is not None and same else source.count(),
            model=network.name,
            model_digest=network.digest,
            seed=_seed(seed, before) if seeded else None,
            **settings,
        )
        store.claim(plan)
        ledger = Ledger(store.hidden / "ledger.sqlite")
        with closing(ledger):
            if retry_failed:
                ledger.try_again()
            word = wording_of(network, wildcards, styles)
            at_once = max(window, getattr(getattr(network, "provider", None), "concurrency", 1))
            work = Work(source, store, ledger, plan, judge, (window, at_once), started, word)
            if not ledger.count("finished"):
                yield from work.progress(work.drawn_by(engines(network, model, plan, judge)))
                work.finish()
            return work.report()


def _model(model: Any, service: Mapping[str, Any]) -> Any:
    """The model itself; of a name, loaded."""
    if not isinstance(model, (str, os.PathLike)):
        return model
    from pictura import presets
    from pictura.task import TextToImage

    if service and presets.remote(model) is None:
        name = next(iter(service))
        message = f"{name} is for remote models, and {shown(os.fspath(model))} is none; leave it out"
        raise ParameterError(message, parameter=name)
    return TextToImage.from_preset(model, **service)


def _engine(name: str, window: int, address: str | None, actors: int | None) -> Callable[..., Engine]:
    """What makes an engine of a model, the same as it was given, a plan and a judge. ParameterError."""
    if name == "local":
        for parameter, value in (("address", address), ("actors", actors)):
            if value is not None:
                message = f"{parameter} is for engine 'ray'; choose that, or leave it out"
                raise ParameterError(message, parameter=parameter)
        return lambda network, given, plan, judge: lambda items: local.pictures(network, items, plan, window)
    if name != "ray":
        raise unknown("engine", name, ["local", "ray"])
    crew: dict[str, Any] = {
        "address": address,
        "actors": None if actors is None else whole("actors", actors, 100_000),
    }
    return lambda network, given, plan, judge: (
        lambda items: on_ray.draw(given, items, plan, judge, window, **crew)
    )


def _takes_seeds(network: Any, seed: int | None) -> bool:
    """Whether the model draws by seeds, as all but some services do; ParameterError for one given then."""
    provider = getattr(network, "provider", None)
    if provider is None or "seed" in provider.parameters:
        return True
    if seed is not None:
        message = f"model {network.name!r} draws without seeds; leave seed out"
        raise ParameterError(message, parameter="seed")
    return False


def _seed(given: int | None, before: Plan | None) -> int | None:
    if given is not None:
        return given
    return random_seed() if before is None else before.seed
