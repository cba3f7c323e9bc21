"""`pictura evaluate`: how often a model draws what it was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pictura.cli.options import SeedOption, model_names, whole
from pictura.cli.show import progress, say
from pictura.errors import Cancelled
from pictura.options import parsed_options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pictura.picture import Picture
    from pictura.task import TextToImage


class Quiet:
    """A model that shows no bar of its own."""

    def __init__(self, model: TextToImage) -> None:
        self._model = model

    def generate(self, inputs: Any, /, *, seed: int | None = None, **settings: Any) -> Iterable[Picture]:
        """What the model gives for a list of prompts."""
        pictures: Iterable[Picture] = self._model.generate(inputs, seed=seed, progress=False, **settings)
        return pictures


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A name, hf://owner/name or a folder.", autocompletion=model_names
        ),
    ],
    suite: Annotated[str, typer.Option(help="Which prompts: scenes.")] = "scenes",
    count: Annotated[int, whole("Pictures of each category.")] = 100,
    seed: SeedOption = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder for the report in Markdown, HTML and JSON."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="K=V", help="A setting of the pictures, such as num_steps=8 or best_of=4."),
    ] = None,
    clip: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of a CLIP model, for metrics that need one.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of a reward model (`pictura train --reward`), as a metric."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one line of JSON.")] = False,
) -> None:
    """Measure how often a model draws what it was asked for.

    Prompts are the same for every model. Each picture is judged by independent checkers; without options the
    model's defaults are graded.
    """
    settings = parsed_options(option or (), reserved=("prompt", "seed", "model"))

    from pictura import evaluation
    from pictura.task import TextToImage

    network = TextToImage.from_preset(model, history=False)
    with progress("evaluate") as bar:
        told = 0

        def tell(done: int, total: int) -> None:
            nonlocal told
            bar.total(total)
            bar.advance(done - told)
            told = done

        try:
            report = evaluation.evaluate(
                Quiet(network),
                suite,
                count=count,
                seed=seed or 0,
                out=out,
                settings=settings,
                clip=clip,
                reward=reward,
                progress=tell,
            )
        except KeyboardInterrupt:
            raise Cancelled("interrupted; there is no report") from None
    print(json.dumps(report.to_dict()) if as_json else report)
    if out is not None:
        say(f"the report is in {out}")
