"""Batches at scale: memory while rows pass through, and how soon a batch with a large ledger goes on.

With a model that answers at once, so that what is seen is the batch's own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _common import ROOT, arguments, machine, spread, write


class Instant:
    """A model that answers at once with one small picture."""

    name, digest = "instant", "0" * 64

    def __init__(self) -> None:
        from PIL import Image

        self._image = Image.new("RGB", (16, 16), "navy")
        self.first: float | None = None

    def stream(self, inputs: Iterator[Any], **_: Any) -> Iterator[Any]:
        from pictura import Picture

        for index, request in enumerate(inputs):
            if self.first is None:
                self.first = time.perf_counter()
            yield Picture(image=self._image, request=request, model_digest=self.digest, index=index)


def memory(rows: int, folder: Path) -> dict[str, Any]:
    """Resident memory and rate while so many rows pass through, in a process of its own."""
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import scale; scale.passing({rows}, sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"a measured process failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def passing(rows: int, folder: str) -> None:
    """What `memory` runs: prints {"mib_at": {share: MiB}, "pictures_per_second"}."""
    from pictura import batch as library

    prompts = Path(folder) / "many.txt"
    with open(prompts, "w") as file:
        file.writelines(f"prompt number {at}\n" for at in range(rows))
    marks: dict[int, float] = {}
    steps = library.follow(prompts, Path(folder) / "many", model=Instant(), seed=1, format="webdataset")
    started = time.perf_counter()
    for progress in steps:
        share = 10 * progress.settled // rows
        if share not in marks:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            marks[share] = round(pages * resource.getpagesize() / 2**20, 1)
    rate = rows / (time.perf_counter() - started)
    print(json.dumps({"mib_at": marks, "pictures_per_second": round(rate, 1), "rows": rows}))


def resuming(rows: int, folder: Path) -> dict[str, Any]:
    """Seconds from a call on a folder with a ledger of so many rows to the first prompt at the model."""
    from pictura import batch
    from pictura.batch.ledger import KEPT, Entry, Ledger

    prompts = folder / "million.txt"
    with open(prompts, "w") as file:
        file.writelines(f"a picture with the number {at}, to be drawn\n" for at in range(rows))
    out, left = folder / "million", 64
    steps = batch.follow(prompts, out, model=Instant(), seed=1)
    next(steps)  # the plan and the ledger are there
    steps.close()
    ledger = Ledger(out / ".pictura" / "ledger.sqlite")
    facts = {"prompt": "a picture with a number, to be drawn", "model": "instant", "content_hash": "0" * 64,
             "seed": 1, "width": 16, "height": 16, "notes": [], "ignored": [], "options": "{}"}  # fmt: skip
    for first in range(0, rows - left, 1000):
        last = min(first + 1000, rows - left)
        with ledger.commit():
            ledger.put(
                Entry(index=at, state=KEPT, facts={**facts, "row": at}, content=at.to_bytes(32, "big"))
                for at in range(first, last)
            )
            ledger.set_count("frontier", last)
    ledger.close()
    size = (out / ".pictura" / "ledger.sqlite").stat().st_size
    times = []
    for _ in range(5):
        model = Instant()
        started = time.perf_counter()
        steps = batch.follow(prompts, out, model=model, seed=1)
        while model.first is None:
            next(steps)
        times.append(model.first - started)
        steps.close()
    return {"rows": rows, "seconds": spread(times, 3), "ledger_bytes_a_row": round(size / rows)}


def main() -> None:
    options = arguments(__doc__ or "")
    before = machine()
    rows, million = (500, 2000) if options.quick else (100_000, 1_000_000)
    with tempfile.TemporaryDirectory() as name:
        results = {"memory": memory(rows, Path(name)), "resume": resuming(million, Path(name))}
    write("scale", results, options, before)


if __name__ == "__main__":
    main()
