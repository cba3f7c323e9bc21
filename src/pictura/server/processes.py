"""Workers as processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Protocol

__all__ = ["Hand", "Pool", "Processes"]


class Hand(Protocol):
    """A worker that was started."""

    error: str | None  # why the model could not be loaded, where it was that

    @property
    def alive(self) -> bool: ...
    def retire(self) -> None:
        """Ask it to end in an orderly way."""
        ...

    def kill(self) -> None:
        """End it at once; its tasks go to others when their leases are over."""
        ...


class Pool(Protocol):
    """Where workers are started. id: what they are to call themselves in the database."""

    def start(self, id: str, name: str, place: str) -> Hand: ...
    def close(self) -> None: ...


class Processes:
    """A process a worker. Each ends when this one does, however that happens: its input is a pipe."""

    def __init__(self, *, url: str | None, folder: Path, grace: float, log: str = "auto") -> None:
        self._url, self._folder, self._grace, self._log = url, folder, grace, log

    def start(self, id: str, name: str, place: str) -> Hand:
        arguments = [id, name, place, self._url or "", str(self._folder), str(self._grace)]
        command = [sys.executable, "-m", "pictura.server.worker", *arguments]
        return _Process(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for us alone
                env=self._environment(),
            )
        )

    def _environment(self) -> dict[str, str]:
        """Ours without the API key, which is none of its business; it keeps its pictures itself."""
        kept = {name: value for name, value in os.environ.items() if name != "PICTURA_API_KEY"}
        return kept | {"PICTURA_HISTORY": "off", "PICTURA_LOG": self._log}

    def close(self) -> None:
        """Nothing is left to close: each worker is ended by its own hand."""


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.error: str | None = None
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def retire(self) -> None:
        if self.process.stdin is not None and not self.process.stdin.closed:
            self.process.stdin.close()

    def kill(self) -> None:
        self.process.kill()

    def _read(self) -> None:
        """What it says of itself: a line of JSON when the model is loaded or cannot be."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict) and "error" in said:
                self.error = str(said["error"])
