"""CONTRIBUTING.md, followed to the letter: each recipe becomes an installed package and is used."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from PIL import Image

import installed
from loopback import served

ROOT = Path(__file__).parents[1]
SECTIONS = dict(
    re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)
)
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


def install(section: str, site: Path) -> list[str]:
    """Write the titled blocks into `site` as an installer would; returns the untitled ones, to be run."""
    scripts = []
    for language, title, text in BLOCK.findall(SECTIONS[section]):
        if title:
            path = site / title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif language == "python":
            scripts.append(text)
    project = tomllib.loads((site / "pyproject.toml").read_text())["project"]
    installed.install(site, project["name"], project["entry-points"], project["version"])
    return scripts


def run(script: str, site: Path, **environment: str) -> None:
    work = site / "work"
    work.mkdir()
    (work / "script.py").write_text(script)
    path = os.pathsep.join([str(site), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "script.py"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


class Draw(BaseHTTPRequestHandler):
    """Too busy for the first call; then a picture whose colour is the seed."""

    calls: list[dict[str, object]] = []

    def do_POST(self) -> None:
        self.calls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        busy = len(self.calls) == 1 or self.path != "/draw/small"
        body = io.BytesIO()
        Image.new("RGB", (4, 4), (int(self.calls[-1]["seed"]), 0, 0)).save(body, "PNG")  # type: ignore[call-overload]
        self.send_response(503 if busy else 200)
        self.send_header("Retry-After", "0.01")
        self.end_headers()
        self.wfile.write(b"" if busy else body.getvalue())

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("section", ["Add a sampler", "Add a family"])
def test_the_recipe_works(section: str, tmp_path: Path) -> None:
    (script,) = install(section, tmp_path)
    run(script, tmp_path)


def test_the_provider_works(tmp_path: Path) -> None:
    (script,) = install("Add a provider", tmp_path)
    with served(Draw) as url:
        run(script, tmp_path, MIRROR_URL=url)
    assert Draw.calls == [{"prompt": "a cat", "seed": 7}] * 5


def test_nothing_but_the_three_recipes_has_code() -> None:
    with_code = {title for title, text in SECTIONS.items() if BLOCK.search(text)}
    assert with_code == {"Add a sampler", "Add a family", "Add a provider"}
