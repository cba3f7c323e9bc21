"""Runs of the trainer that are killed, and what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor


def killed(recipe: Path, out: Path) -> None:
    """Train in a process of its own and kill -9 it as soon as it has stored its state."""
    code = "import sys; from pictura.training import trainer; trainer.train(*sys.argv[1:])"
    process = subprocess.Popen([sys.executable, "-c", code, str(recipe), str(out)], env=os.environ)
    deadline, state = time.monotonic() + 120, out / "state.safetensors"
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def log(out: Path) -> dict[int, dict[str, Any]]:
    return {entry["step"]: entry for entry in map(json.loads, (out / "log.jsonl").read_text().splitlines())}


def weights(out: Path) -> dict[str, Tensor]:
    with safe_open(out / "state.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
