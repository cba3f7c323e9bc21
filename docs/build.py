"""Write every generated page: docs/{cli,api,http,models}.md and README.md's tree. Used by `make docs`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"

for name in ("make_cli_docs", "make_api_docs", "make_http_docs", "make_tree", "make_models_page"):
    subprocess.run([sys.executable, str(SCRIPTS / f"{name}.py")], check=True)
