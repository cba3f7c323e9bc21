"""How many files lie between a prompt and its PNG, measured with a profile hook and held by this test.

Networks (`nn`, a family's `model.py`), value types and discovery are not counted.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pictura_toy.family
import pytest

import pictura
from pictura import TextToImage
from pictura.engine import Engine

ROOT = Path(pictura.__file__).parent
TOY = Path(pictura_toy.family.__file__)
UNCOUNTED = {
    "errors.py", "levels.py", "request.py", "picture.py",  # value types
    "discovery.py", "samplers/__init__.py", "families/__init__.py",  # discovery
}  # fmt: skip
TO_PICTURE = {"task.py", "watching.py", "drawing.py", "engine.py", "guidance.py", "samplers/euler.py",
              "samplers/schedules.py"}  # fmt: skip
AROUND = {
    "inputs.py", "completion.py",  # what came in, as complete requests
    "datasets/scenes/words.py",  # which words the model does not know
    "learning.py",  # the side of the model that holds its family
    "loading.py", "formats/networks.py", "formats/safetensors.py",  # the digest of the weights
    "metadata.py", "infotext.py", "files.py",  # the PNG and what it says
}  # fmt: skip
FAMILIES = {
    "toy": {"family.py"},
    "scenes": {"families/scenes/family.py", "text/wordlist.py"},
}
SMALL = {"width": 64, "heads": 2, "hidden": 64, "depth": 2, "text_depth": 1, "coefficients": 16}


def counted(code):
    """A code object's file as this test names it, or None where it does not count."""
    path = Path(code.co_filename)
    if path == TOY:
        return "family.py"
    if ROOT not in path.parents or code.co_name == "<module>":
        return None
    name = path.relative_to(ROOT).as_posix()
    return None if name in UNCOUNTED or name.startswith("nn/") or name.endswith("/model.py") else name


class Watch:
    """Files with executed functions: all of them, and those below or above a step of the engine."""

    def __init__(self):
        self.all, self.stepping = set(), set()

    def __call__(self, frame, event, argument):
        if event != "call" or (name := counted(frame.f_code)) is None:
            return
        self.all.add(name)
        stack = []
        while frame is not None:
            stack.append(frame.f_code)
            frame = frame.f_back
        if Engine.step.__code__ in stack:
            self.stepping |= {name for code in stack if (name := counted(code)) is not None}

    def __enter__(self):
        threading.setprofile(self)
        sys.setprofile(self)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.fixture(params=["toy", "scenes"])
def model(request, tmp_path):
    if request.param == "toy":
        return TextToImage.from_preset("toy")
    config = {"family": "scenes", "architecture": SMALL, "defaults": {}, "provenance": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return TextToImage.from_preset(tmp_path, load_weights=False)


def test_files_from_prompt_to_png(model, tmp_path):
    with Watch() as watch:
        model.generate("a cat", seed=1, num_steps=2, sampler="euler").save(tmp_path / "cat.png")
    family = FAMILIES[model.family.name]
    # Prompt to picture: eight files, and the list in which the built-in model looks its words up.
    assert watch.stepping == TO_PICTURE | family
    assert len(watch.stepping - {"text/wordlist.py"}) <= 8
    # With inputs, the weights' digest and the file: every file, so that a new one is a decision.
    assert watch.all - TO_PICTURE - family <= AROUND
    assert len(watch.all) <= 19


def test_the_files_are_drawn_in_the_documentation():
    page = Path(__file__).parent.parent / "docs" / "architecture.md"
    text = page.read_text()
    for name in [*TO_PICTURE, *AROUND, *FAMILIES["scenes"]]:
        assert f"`{name}`" in text, f"{page.name} does not name {name}"
