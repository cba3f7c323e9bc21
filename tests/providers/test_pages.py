"""The page of every service: its examples run against the stand-in, and it names all that can be set."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from standins import STANDINS

from loopback import SECRET
from pictura import providers

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "providers"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.M | re.S)
MOVED = """
import json, os
from pictura import providers
for name, url in json.loads(os.environ["STANDINS"]).items():
    providers.load(name).base = url
"""
DRIVER = """
import json, subprocess, sys
namespace = {"__name__": "__main__"}
for language, text in json.load(open(sys.argv[1])):
    if language == "python":
        exec(compile(text, "page", "exec"), namespace)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)
assert "torch" not in sys.modules
"""
WORDS = {"num_steps": "--steps", "guidance_scale": "--guidance", "negative_prompt": "negative_prompts"}


QUICK = ("README", "openai", "huggingface")
ALL = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in STANDINS if name not in QUICK)]


@pytest.mark.parametrize("name", ALL)
def test_every_example_runs(name, tmp_path):
    steps = BLOCK.findall((PAGES / f"{name}.md").read_text("utf-8"))
    assert {language for language, _ in steps} == {"sh", "python"}
    work, tools = tmp_path / "work", tmp_path / "bin"
    work.mkdir()
    tools.mkdir()
    (tmp_path / "steps.json").write_text(json.dumps(steps))
    shim = f"#!{sys.executable}\nimport sys\n{MOVED}\nfrom pictura.cli import main\nsys.exit(main())\n"
    (tools / "pictura").write_text(shim)
    (tools / "pictura").chmod(0o755)
    with ExitStack() as stack:
        used = {"openai"} if name == "README" else {name}
        servers = {each: stack.enter_context(STANDINS[each].serve()) for each in used}
        keys = {key: SECRET for each in used for key in providers.load(each).keys}
        here = {"azure": "AZURE_OPENAI_ENDPOINT", "bedrock": "AWS_ENDPOINT_URL_BEDROCK_RUNTIME"}
        places = {here[each]: server.url for each, server in servers.items() if each in here}
        done = subprocess.run(
            [sys.executable, "-c", MOVED + DRIVER, str(tmp_path / "steps.json")],
            cwd=work,
            env={
                **os.environ, **keys, **places, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT / "src"), "AUTOMATIC1111_AUTH": "user:password",
                "STANDINS": json.dumps({each: server.url for each, server in servers.items()}),
                "PICTURA_CACHE": str(tmp_path / "cache"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert list(work.rglob("*.png")) and SECRET not in done.stdout


@pytest.mark.parametrize("name", providers.names())
def test_every_page_names_all_that_can_be_set(name):
    page, service = (PAGES / f"{name}.md").read_text("utf-8"), providers.load(name)
    assert f"{providers.scheme(name)}://" in page
    assert f"({name}.md)" in (PAGES / "README.md").read_text("utf-8")
    for key in service.keys:
        assert key in page
    for parameter in service.parameters:
        assert WORDS.get(parameter, parameter) in page, parameter
    for option in service.options:
        assert f"`{option}`" in page, option
