"""Documentation that cannot rot: every code block is run, generated pages are current, every link holds.

A block's first line says what to do with it: ```python is run, ```python NAME and ```toml NAME (any language)
are written to NAME first, ```sh is run by bash with `pictura` on the path, others are only shown. Blocks of a
page share one folder, one process and one namespace, in their order.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIALS = [*sorted((DOCS / "tutorials").glob("*.md")), DOCS / "batch.md", DOCS / "server.md"]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.M | re.S)
SHIM = f"""#!{sys.executable}
import sys
from pictura.cli import main
sys.exit(main())
"""
DRIVER = """
import json, pathlib, subprocess, sys
namespace = {"__name__": "__main__"}
for language, name, text, line in json.load(open(sys.argv[1])):
    print(f"--- line {line}", flush=True)
    if name:
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(name).write_text(text)
    elif language == "python":
        exec(compile("\\n" * line + text, sys.argv[2], "exec"), namespace)
    elif language == "sh":
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)
"""


def blocks(page: Path) -> list[tuple[str, str, str, int]]:
    """(language, file name or "", text, line number) of every code block."""
    text = page.read_text(encoding="utf-8")
    return [(m[1], m[2] or "", m[3], text.count("\n", 0, m.start()) + 1) for m in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [ROOT / "README.md", *TUTORIALS], ids=lambda page: page.stem)
def test_every_code_block_runs(page: Path, tmp_path: Path) -> None:
    import json

    steps, tools, place = tmp_path / "steps.json", tmp_path / "bin", tmp_path / "work"
    steps.write_text(json.dumps(blocks(page)))
    for folder in (tools, place):
        folder.mkdir()
    (tools / "pictura").write_text(SHIM)
    (tools / "pictura").chmod(0o755)
    environment = {
        **os.environ,
        "PICTURA_HISTORY": "on",
        "PICTURA_HOME": str(tmp_path / "home"),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(place)]),
    }
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(steps), str(page)],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:]


GENERATED = ["make_cli_docs", "make_api_docs", "make_http_docs", "make_tree", "make_models_page"]


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_current(name: str) -> None:
    script = ROOT / "scripts" / f"{name}.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(script), "--check"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"run python scripts/{name}.py\n{done.stderr}"


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|<img[^>]+src=\"([^\"]+)\"", text):
        link = "".join(target)
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
