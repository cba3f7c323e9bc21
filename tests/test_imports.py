"""A fresh process: what is cheap to import stays cheap, and torch is loaded by whom it belongs to only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pictura

SOURCE = Path(pictura.__file__).parents[1]
VALUES = {"numpy", "PIL"}  # request and picture
TERMINAL = {"typer", "click", "shellingham", "annotated_doc", "typing_extensions"}
TERMINAL |= {"rich", "markdown_it", "mdurl", "pygments", "attr"}  # help in colour; attrs only where installed
TERMINAL |= {"pydantic", "pydantic_core", "annotated_types", "typing_inspection"}  # typer's own
ALLOWED = {
    "import pictura": set(),
    "import pictura; dir(pictura); pictura.__version__": set(),
    "import pictura; pictura.PicturaError": set(),
    "import pictura; pictura.Request": set(),
    "import pictura; pictura.Picture": VALUES,
    "import pictura; pictura.samplers()": set(),
    "import pictura; pictura.families.presets()": set(),
    "from pictura import presets; presets.names()": set(),
    "from pictura import providers; [providers.load(name) for name in providers.names()]": VALUES,
    "from pictura.cli import main": set(),
    "from pictura.cli import main; main(['--version'])": TERMINAL,
    "from pictura.cli import main; main(['--help'])": TERMINAL,
    "from pictura.cli import main; main(['generate', '--help'])": TERMINAL,
}
REPORT = """
import json, sys, sysconfig
before = set(sys.modules)
{statement}
found = {{name.split(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(found - sys.stdlib_module_names)))
"""


def loaded(statement: str) -> set[str]:
    """Third-party packages that a fresh process has loaded after `statement`."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    run = subprocess.run(
        [sys.executable, "-c", REPORT.format(statement=statement)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    return {name for name in json.loads(run.stdout.splitlines()[-1]) if not name.startswith("_")} - {
        "pictura"
    }


@pytest.mark.parametrize("statement", ALLOWED)
def test_only_what_is_needed_is_loaded(statement: str) -> None:
    assert loaded(statement) <= ALLOWED[statement]


def test_every_public_name_exists() -> None:
    for name in pictura.__all__:
        assert getattr(pictura, name) is not None
    assert set(pictura.__all__) <= set(dir(pictura))
