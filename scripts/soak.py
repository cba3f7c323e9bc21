"""Half an hour of everything at once against a real server, and what became of it.

    python scripts/soak.py [--minutes 30] [--callers 6] [--kill-every 120] [--database URL] [--json FILE]

Callers ask in all wire formats, for pictures, previews, searches and ratings; jobs are cancelled, a worker is
killed now and then. Every minute a line tells pictures, failures, latency and memory. In the end every
acknowledged picture must be there once and open, the database sound, and memory not have grown beyond a
quarter after the first five minutes. Exit status 1 where any of it does not hold.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = ("a cat", "two stars", "an owl above a pine tree", "a rocket on a blue background", "ein Hund 🐕")


@dataclass
class Tally:
    """What callers saw; `acknowledged` are ids of pictures that were answered."""

    counts: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def saw(self, what: str, seconds: float | None = None, ids: tuple[str, ...] = ()) -> None:
        with self.lock:
            self.counts[what] += 1
            self.acknowledged += ids
            if seconds is not None:
                self.waits.append(seconds)

    def missed(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)


class Caller(threading.Thread):
    """One client, asking one thing after the other until it is told to stop."""

    def __init__(self, url: str, number: int, tally: Tally, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.url, self.tally, self.over = url, tally, over
        self.rng = random.Random(number)
        self.client = httpx2.Client(base_url=url, timeout=120)

    def run(self) -> None:
        ways = (self.job, self.job, self.openai, self.hugging_face, self.automatic, self.cancelled,
                self.search, self.bad)  # fmt: skip
        while not self.over.is_set():
            way = self.rng.choice(ways)
            try:
                way()
            except httpx2.HTTPError as error:
                self.tally.missed(f"{way.__name__}: {type(error).__name__}: {error}")

    def request(self) -> dict[str, Any]:
        return {
            "prompt": self.rng.choice(PROMPTS),
            "seed": self.rng.randrange(1 << 32),
            "num_steps": self.rng.choice((2, 4, 8)),
            "guidance_scale": self.rng.choice((1.0, 3.0)),
        }

    def sound(self, what: str, answer: httpx2.Response, *allowed: int) -> bool:
        if answer.status_code not in allowed:
            self.tally.missed(f"{what}: {answer.status_code} {answer.text[:200]}")
        return answer.status_code == allowed[0]

    def job(self) -> None:
        started = time.perf_counter()
        body = {"requests": [self.request() for _ in range(self.rng.choice((1, 1, 3)))]}
        answer = self.client.post("/api/jobs", json=body)
        if not self.sound("job", answer, 202, 429):
            return
        id, found = answer.json()["id"], []
        with self.client.stream("GET", f"/api/jobs/{id}/events") as events:
            for line in events.iter_lines():
                if line.startswith("data: ") and '"url"' in line:
                    found.append(json.loads(line[6:])["id"])
        if len(found) != len(body["requests"]):
            self.tally.missed(f"job {id}: {len(found)} of {len(body['requests'])} pictures were told of")
        self.tally.saw("job", time.perf_counter() - started, tuple(found))
        if self.rng.random() < 0.3:
            rated = self.client.patch(f"/api/images/{found[0]}", json={"stars": self.rng.randint(1, 5)})
            self.sound("rating", rated, 200)

    def openai(self) -> None:
        started = time.perf_counter()
        answer = self.client.post("/v1/images/generations", json={**self.request(), "n": 2})
        if self.sound("openai", answer, 200, 429):
            for one in answer.json()["data"]:
                Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))).load()
            self.tally.saw("openai", time.perf_counter() - started)

    def hugging_face(self) -> None:
        started, asked = time.perf_counter(), self.request()
        parameters = {"seed": asked["seed"], "num_inference_steps": asked["num_steps"]}
        body = {"inputs": asked["prompt"], "parameters": parameters}
        answer = self.client.post("/models/scenes", json=body)
        if self.sound("hugging face", answer, 200, 429):
            Image.open(io.BytesIO(answer.content)).load()
            self.tally.saw("hugging face", time.perf_counter() - started)

    def automatic(self) -> None:
        started, asked = time.perf_counter(), self.request()
        body = {"prompt": asked["prompt"], "seed": asked["seed"], "steps": asked["num_steps"],
                "width": 128, "height": 128}  # fmt: skip
        answer = self.client.post("/sdapi/v1/txt2img", json=body)
        if self.sound("automatic1111", answer, 200, 429):
            Image.open(io.BytesIO(base64.b64decode(answer.json()["images"][0]))).load()
            self.tally.saw("automatic1111", time.perf_counter() - started)

    def cancelled(self) -> None:
        answer = self.client.post("/api/jobs", json={"requests": [{**self.request(), "num_images": 5}]})
        if self.sound("job to cancel", answer, 202, 429):
            time.sleep(self.rng.random())
            ended = self.client.delete(f"/api/jobs/{answer.json()['id']}")
            if self.sound("cancel", ended, 200):
                self.tally.saw("cancelled", None, tuple(image["id"] for image in ended.json()["images"]))

    def search(self) -> None:
        started = time.perf_counter()
        answer = self.client.get("/api/images", params={"query": self.rng.choice(("cat", "owl", "", "Hund"))})
        if self.sound("search", answer, 200):
            self.tally.saw("search", time.perf_counter() - started)

    def bad(self) -> None:
        body = self.rng.choice(({"requests": [{"prompt": 3}]}, {"requests": []}, {"prompt": "a"}))
        if self.sound("bad request", self.client.post("/api/jobs", json=body), 400, 422):
            self.tally.saw("bad request")


def memory(pid: int) -> dict[str, int]:
    """Megabytes of the API process and of its workers together."""
    found = {"api": _resident(pid), "workers": 0}
    for other in _children(pid):
        found["workers"] += _resident(other)
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
    except (OSError, IndexError):
        return 0


def _children(pid: int) -> list[int]:
    found = []
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(other))
        except (OSError, IndexError):
            continue
    return found


def checked(url: str, tally: Tally, folder: Path) -> list[str]:
    """What does not hold at the end."""
    wrong = list(tally.wrong)
    twice = [id for id, count in Counter(tally.acknowledged).items() if count > 1]
    if twice:
        wrong.append(f"{len(twice)} pictures were told of twice")
    with httpx2.Client(base_url=url, timeout=60) as client:
        for id in tally.acknowledged:
            answer = client.get(f"/images/{id}.png")
            if answer.status_code != 200:
                wrong.append(f"picture {id} was acknowledged and is not there")
                continue
            Image.open(io.BytesIO(answer.content)).load()
        waiting = client.get("/api/jobs", params={"status": "running"}).json()["items"]
        if waiting:
            wrong.append(f"{len(waiting)} jobs never ended")
    if (folder / "history.sqlite").exists():
        import sqlite3

        with sqlite3.connect(folder / "history.sqlite") as database:
            if (said := database.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                wrong.append(f"the database is damaged: {said}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--callers", type=int, default=6)
    parser.add_argument(
        "--kill-every", type=float, default=120, help="seconds between two dead workers; 0: none"
    )
    parser.add_argument("--database", help="the URL of an empty PostgreSQL database")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        serve = "import sys; from pictura.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", serve, "serve", "--port", "0", "--folder", place]
        command += ["--database", options.database] if options.database else []
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        log = folder / "server.log"
        with open(log, "w") as said:
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        url = line.split()[3].rstrip("/")
        threading.Thread(target=process.stdout.read, daemon=True).start()
        tally, over = Tally(), threading.Event()
        callers = [Caller(url, number, tally, over) for number in range(options.callers)]
        for caller in callers:
            caller.start()
        started = last_kill = time.monotonic()
        rows: list[dict[str, Any]] = []
        kills = 0
        while time.monotonic() < started + 60 * options.minutes:
            minute = min(60.0, 60 * options.minutes)
            until = time.monotonic() + minute
            while time.monotonic() < until:
                time.sleep(0.5)
                if options.kill_every and time.monotonic() > last_kill + options.kill_every:
                    last_kill = time.monotonic()
                    for pid in _children(process.pid):
                        os.kill(pid, signal.SIGKILL)
                        kills += 1
            with tally.lock:
                waits, tally.waits = sorted(tally.waits), []
            rows.append({
                "minute": round((time.monotonic() - started) / 60, 1), "answers": sum(tally.counts.values()),
                "wrong": len(tally.wrong), "p50": round(waits[len(waits) // 2], 2) if waits else None,
                "p99": round(waits[int(len(waits) * 0.99)], 2) if waits else None, **memory(process.pid),
            })  # fmt: skip
            print(rows[-1], flush=True)
        over.set()
        for caller in callers:
            caller.join(130)
        time.sleep(2)
        wrong = checked(url, tally, folder)
        settled = [row["api"] for row in rows if row["minute"] >= 5] or [row["api"] for row in rows]
        if settled[-1] > 1.25 * settled[0]:
            wrong.append(f"the API process grew from {settled[0]} to {settled[-1]} MB")
        process.terminate()
        process.wait(60)
        wrong += [line for line in log.read_text().splitlines() if "Traceback" in line][:5]
    found = {
        "minutes": options.minutes, "callers": options.callers, "answers": dict(tally.counts),
        "acknowledged": len(tally.acknowledged), "workers_killed": kills, "rows": rows, "wrong": wrong[:50],
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({name: value for name, value in found.items() if name != "rows"}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
