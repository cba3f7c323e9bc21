"""Run batches that kill themselves with -9, until they end; `test_kill.py` compares what is left.

    python killed.py FOLDER SEED FORMAT=KILLS...

One process loads torch and a model, then forks a child for every run, so that a run starts in milliseconds. A
child is killed at a random moment, or right before or after a random one of its fsyncs, renames and removals.
Where a format's settings say "moody", the model fails for some pictures and the scorer for others until the
batch has ended once; then they are made with `retry_failed`, killed as before.
Prints a JSON line for each format: the kill points, the folders, how many pictures each run drew.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pictura import Failure, Picture, TextToImage, batch
from pictura.errors import EngineError

ROWS, WINDOW = 40, 4
SETTINGS: dict[str, dict[str, Any]] = {
    "folder": {},
    "webdataset": {"best_of": 2, "scorers": ["killed_scorer"], "dedup": "perceptual:2"},
    "parquet": {
        "num_images": 2, "filters": ["blank"], "best_of": 3, "scorers": ["killed_scorer"], "min_score": 20.0,
        "dedup": "perceptual:1", "moody": True,
    },
    "datasets": {"dedup": "exact"},
}  # fmt: skip
moody = False  # what fails now will not fail later


def brightness(pictures: Any) -> list[float]:
    if moody and any(picture.request.seed % 11 == 3 for picture in pictures):
        raise MemoryError("later")
    return [sum(picture.image.convert("L").tobytes()) / 64 for picture in pictures]


class Counted:
    """The model, writing down every picture it draws. In its moods it loses three of thirteen."""

    def __init__(self, model: Any, log: Path) -> None:
        self.name, self.digest, self._model = model.name, model.digest, model
        self._log = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def stream(self, *args: Any, **more: Any) -> Any:
        for event in self._model.stream(*args, **more):
            if isinstance(event, Picture):
                os.write(self._log, b".")
                if moody and event.request.seed % 13 < 3:
                    event = Failure(index=event.index, request=event.request, error=EngineError("later"))
            yield event


def child(
    model: Any, folder: Path, out: Path, form: str, again: bool, point: tuple[str, float] | None
) -> None:
    global moody
    if point is not None:
        arm(*point)
    settings = {"retry_failed": again, **SETTINGS[form]}
    moody = settings.pop("moody", False) and not again
    if "scorers" in settings:
        settings["scorers"] = [brightness]
    batch.run(
        folder / "prompts.txt", out, model=Counted(model, folder / f"{out.name}.log"), seed=5, num_steps=2,
        format=form, shard=6, batch_size=WINDOW, **settings,
    )  # fmt: skip


def arm(kind: str, when: float) -> None:
    """Die `when` seconds from now, or before or after operation number `when`."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if kind == "time":
        timer = threading.Timer(when, die)
        timer.daemon = True
        timer.start()
        return
    left = int(when)

    def counted(real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and kind == "before":
                die()
            value = real(*args, **more)
            if left == 0:
                die()
            return value

        return call

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, counted(getattr(os, name)))


def forked(*arguments: Any) -> int:
    """Run a child; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            child(*arguments)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    folder, seed = Path(sys.argv[1]), sys.argv[2]
    colours = "red green blue gray black white".split()
    lines = [f"{colours[i % 6]} {colours[i // 6 % 6]} square" for i in range(ROWS)]
    (folder / "prompts.txt").write_text("\n".join(lines) + "\n")
    model = TextToImage.from_preset(folder / "toy")
    for task in sys.argv[3:]:
        form, _, kills = task.partition("=")
        print(json.dumps(killed(model, folder, form, int(kills), random.Random(f"{seed} {form}"))))


def killed(model: Any, folder: Path, form: str, kills: int, rng: random.Random) -> dict[str, Any]:
    """Run one format whole, and again and again with at least so many kills in all."""
    started = time.perf_counter()
    parts = (False, True) if "moody" in SETTINGS[form] else (False,)
    for again in parts:
        assert forked(model, folder, folder / form, form, again, None) == 0
        shutil.copytree(folder / form, folder / f"{form}-ended-{again}")
    whole = time.perf_counter() - started
    points: list[tuple[str, float]] = []
    rounds = 0
    while len(points) < kills:
        rounds += 1
        out = folder / f"{form}-{rounds}"
        for again in parts:
            status = -signal.SIGKILL
            while status:
                kind = rng.choice(["time", "before", "after"])
                point = kind, rng.uniform(0, whole) if kind == "time" else float(rng.randint(1, 50))
                status = forked(model, folder, out, form, again, point)
                assert status in (0, -signal.SIGKILL), status
                if status:
                    points.append((kind, round(point[1], 4)))
            shutil.copytree(out, folder / f"{out.name}-ended-{again}")
    drawn = {path.stem: path.stat().st_size for path in sorted(folder.glob(f"{form}*.log"))}
    return {"format": form, "points": points, "drawn": drawn, "parts": parts}


if __name__ == "__main__":
    main()
