"""The history: what keeping a picture costs beside drawing it, and how long a search takes among a million.

Every picture is fsynced, its folder too, and its row committed, before a call returns.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _common import arguments, fresh, in_turn, machine, seconds, spread, write

OURS = "import sys; from pictura.cli import main; sys.exit(main())"
WORDS = 5000  # how many there are; the nth is taken as often as the first, divided by n


def starting(runs: int, folder: Path) -> dict[str, Any]:
    """Seconds of a whole `pictura generate`, with the history and without."""
    os.environ["PICTURA_HOME"] = str(folder / "home")
    os.environ.pop("PICTURA_HISTORY", None)
    draw = ("generate", "a cat", "--seed", "1", "--no-show", "--overwrite", "--out", str(folder / "a.png"))
    took = in_turn(
        {"with": lambda: fresh(OURS, *draw), "without": lambda: fresh(OURS, *draw, "--no-history")}, runs
    )
    return {name: spread(values, 3) for name, values in took.items()}


def calls(runs: int, steps: int, folder: Path) -> dict[str, Any]:
    """Milliseconds a picture of `generate`, of one picture and of sixteen, with the history and without."""
    import torch

    from pictura import TextToImage
    from pictura.history import History

    torch.set_num_threads(1)
    model, number = TextToImage.from_preset("scenes"), iter(range(10**9))
    found = {}
    with History(None, folder / "calls") as history:
        for count in (1, 16):

            def draw(place: Any, count: int = count) -> float:
                prompts = ["a cat left of a pizza"] * count
                first = next(number) * count  # another picture each time: no file is there already
                return (
                    1000
                    / count
                    * seconds(lambda: model.generate(prompts, seed=first, num_steps=steps, history=place))
                )

            took = in_turn({"with": lambda: draw(history), "without": lambda: draw(False)}, runs)
            found[str(count)] = {name: spread(values, 2) for name, values in took.items()}
    return found


def keeping(runs: int, folder: Path) -> dict[str, Any]:
    """Milliseconds a picture of `History.add` and of `add_all` with sixteen, by the pictures' sides."""
    import numpy as np
    from PIL import Image

    from pictura.history import History
    from pictura.picture import Picture
    from pictura.request import Request

    rng = np.random.default_rng(0)

    def pictures(side: int, count: int) -> list[Picture]:
        made = []
        for _ in range(count):
            rough = Image.fromarray(rng.integers(0, 255, (side // 64, side // 64, 3), dtype=np.uint8))
            smooth = np.asarray(rough.resize((side, side), Image.Resampling.BICUBIC), int)
            pixels = (smooth + rng.integers(-3, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
            made.append(Picture(image=Image.fromarray(pixels), request=Request(prompt="a cat", seed=1)))
        return made

    found = {}
    with History(None, folder / "keeping") as history:
        for side in (128, 512, 1024):
            took = in_turn(
                {
                    "alone": lambda side=side: _each(history.add, pictures(side, 1)[0], 1),
                    "sixteen": lambda side=side: _each(history.add_all, pictures(side, 16), 16),
                },
                runs,
            )
            found[str(side)] = {name: spread(values, 2) for name, values in took.items()}
    return found


def _each(call: Callable[[Any], object], given: Any, count: int) -> float:
    return 1000 / count * seconds(lambda: call(given))


def searching(rows: int, runs: int, folder: Path) -> dict[str, Any]:
    """Milliseconds of a page of fifty among `rows` pictures; "size" is the database's bytes a row."""
    from pictura.history import History

    names = [f"word{number}" for number in range(WORDS)]
    with History(None, folder / "many") as history:
        began = time.perf_counter()
        _fill(history, rows, names)
        filled = time.perf_counter() - began
        asked: dict[str, Callable[[], Any]] = {
            "the newest": lambda: history.search(),
            "a word that one in three has": lambda: history.search(names[0]),
            "a word that one in a thousand has": lambda: history.search(names[400]),
            "two words": lambda: history.search(f"{names[3]} {names[50]}"),
            "the beginning of a word": lambda: history.search("word49"),
            "a word that none has": lambda: history.search("zebra"),
            "a word, a model, four stars": lambda: history.search(names[9], model="b", min_stars=4),
            "a seed": lambda: history.search(seed=rows // 2),
            "five stars": lambda: history.search(min_stars=5),
        }
        took = {}
        for name, call in asked.items():
            call()
            took[name] = spread([1000 * seconds(call) for _ in range(runs)], 2)
        cursor = None
        for _ in range(20):
            cursor = history.search(limit=500, cursor=cursor).next or cursor
        deep = [1000 * seconds(lambda: history.search(cursor=cursor)) for _ in range(runs)]
        took["a page after ten thousand others"] = spread(deep, 2)
        size = (folder / "many" / "history.sqlite").stat().st_size
    return {"rows": rows, "seconds_to_fill": round(filled, 1), "bytes_a_row": round(size / rows), "ms": took}


def _fill(history: Any, rows: int, names: list[str]) -> None:
    from sqlalchemy import insert

    from pictura.history.database import begin
    from pictura.history.tables import pictures

    with begin(history.engine) as connection:
        block: list[dict[str, Any]] = []
        for values in _rows(rows, names):
            block.append(values)
            if len(block) == 5000:
                connection.execute(insert(pictures), block)
                block = []
        if block:
            connection.execute(insert(pictures), block)


def _rows(rows: int, names: list[str]) -> Iterator[dict[str, Any]]:
    from pictura.request import Request

    chance = random.Random(0)
    weights = [1 / (number + 1) for number in range(len(names))]
    for number in range(rows):
        prompt = " ".join(chance.choices(names, weights, k=4))
        model, stars = chance.choice("abc"), chance.choice((None,) * 7 + (1, 4, 5))
        request = Request(
            prompt=prompt, seed=number, num_steps=20, guidance_scale=4.0, sampler="euler", model=model
        )
        yield {
            "id": f"{number:032x}", "made_at": number, "sha256": f"{number:064x}", "suffix": ".png",
            "width": 128, "height": 128, "prompt": prompt, "model": model, "seed": number, "num_steps": 20,
            "guidance_scale": 4.0, "sampler": "euler", "request": request.to_json(), "details": "{}",
            "stars": stars,
        }  # fmt: skip


def main() -> None:
    options, before = arguments(__doc__ or ""), machine()
    runs, rows = (1, 2000) if options.quick else (9, 1_000_000)
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            "starting": starting(runs, folder),
            "calls": calls(runs, 2 if options.quick else 12, folder),
            "keeping": keeping(runs, folder),
            "searching": searching(rows, runs, folder),
        }
    write("history", results, options, before)


if __name__ == "__main__":
    main()
