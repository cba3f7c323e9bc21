"""The pages about clients: every block is run, against a server whose address stands in for the usual one."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "clients").glob("[a-z]*.md"))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.M | re.S)
LISTED = re.compile(r"\]\(([a-z0-9]+\.md)\)")


def blocks(page: Path, port: int) -> list[tuple[str, str]]:
    """(language, text) of what is run, with the server's port."""
    found = BLOCK.findall(page.read_text())
    return [
        (kind, text.replace("127.0.0.1:7860", f"127.0.0.1:{port}").replace("port=7860", f"port={port}"))
        for kind, text in found
    ]


def script(page: Path, port: int) -> str:
    return "\n".join(text for kind, text in blocks(page, port) if kind == "python")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_runs(server, page, tmp_path):
    if page.stem == "litellm" and importlib.util.find_spec("litellm") is None:
        pytest.skip("litellm has an environment of its own; see test_litellm")
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script(page, server.port)],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for kind, text in blocks(page, server.port):
        if kind == "sh" and shutil.which("curl"):
            said = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, timeout=120
            )
            assert said.returncode == 0 and '"data":[{' in said.stdout, said.stdout + said.stderr


def test_every_page_is_listed():
    listed = set(LISTED.findall((ROOT / "docs" / "clients" / "README.md").read_text()))
    assert listed == {page.name for page in PAGES} and all(BLOCK.search(page.read_text()) for page in PAGES)
