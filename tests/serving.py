"""Real servers: `pictura serve` in a process of its own, asked over HTTP on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2


class Server:
    """A server with a history of its own. `start` and `kill` as often as one likes; the port stays."""

    def __init__(self, folder: Path, *arguments: str, first: str = "", **environment: str) -> None:
        self.folder, self.arguments, self.environment = folder, arguments, environment
        self.path = os.pathsep.join([first, *sys.path] if first else sys.path)  # where its modules are
        self.port = 0
        self.log: list[str] = []
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, *, ready: bool = True) -> Server:
        command = [sys.executable, "-c", "import sys; from pictura.cli import main; sys.exit(main())"]
        command += ["serve", "--port", str(self.port), "--folder", str(self.folder), *self.arguments]
        environment = os.environ | {"PYTHONPATH": self.path, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment | self.environment,
        )  # fmt: skip
        told, before = threading.Event(), len(self.log)
        threading.Thread(target=self._read, args=(self.process, told), daemon=True).start()
        told.wait(120)
        if not any("Pictura is at" in line for line in self.log[before:]):
            self.process.wait(30)
            raise RuntimeError("the server did not start:\n" + "\n".join(self.log))
        if ready:
            self.until(lambda: self.get("/readyz").status_code == 200)
        return self

    def _read(self, process: subprocess.Popen[str], told: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.log.append(line.rstrip())
                if found := re.search(r"Pictura is at http://[^ ]+:(\d+)/", line):
                    self.port = int(found[1])
                    told.set()
        told.set()

    def until(self, true: Any, seconds: float = 120) -> Any:
        """What `true()` gives as soon as it is true; connections may fail until then."""
        end = time.monotonic() + seconds
        while True:
            try:
                if found := true():
                    return found
            except httpx2.HTTPError:
                pass
            if time.monotonic() > end:
                raise AssertionError("it did not happen in time:\n" + "\n".join(self.log[-30:]))
            time.sleep(0.02)

    def request(self, method: str, path: str, **more: Any) -> httpx2.Response:
        return httpx2.request(method, self.url + path, timeout=60, **more)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self.request("GET", path, **more)

    def submit(self, *requests: dict[str, Any], **headers: str) -> dict[str, Any]:
        answer = self.request("POST", "/api/jobs", json={"requests": list(requests)}, headers=headers)
        assert answer.status_code == 202, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def job(self, id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/api/jobs/{id}").json()
        return found

    def ended(self, id: str, seconds: float = 120) -> dict[str, Any]:
        ended = ("done", "failed", "cancelled")
        found: dict[str, Any] = self.until(lambda: (job := self.job(id))["status"] in ended and job, seconds)
        return found

    def events(self, id: str, after: int = 0) -> list[tuple[str, dict[str, Any], int | None]]:
        """(kind, data, seq) of all that happened and happens to a job until it ends."""
        found = []
        with httpx2.stream("GET", f"{self.url}/api/jobs/{id}/events?after={after}", timeout=60) as answer:
            for block in answer.read().decode().split("\n\n"):
                fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
                if fields:
                    seq = int(fields["id"]) if "id" in fields else None
                    found.append((fields["event"], json.loads(fields["data"]), seq))
        return found

    def stop(self) -> int:
        """End it in an orderly way; its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def kill(self) -> None:
        """kill -9 of the API process."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
