"""How many files lie between a prompt and its PNG, measured with a profile hook and held by this test.

That is the way of the picture. The history beside it hangs on one place, the end of `TextToImage.stream`, and
is measured on its own: it adds files of its own and no other.

Networks (`nn`, a family's `model.py`), value types with their file forms (`picture/`) and discovery are not
counted.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pictura_toy.family
import pytest

import pictura
from pictura import TextToImage
from pictura.history import History

ROOT = Path(pictura.__file__).parent
TOY = Path(pictura_toy.family.__file__)
UNCOUNTED = {
    "errors.py", "levels.py", "request.py",  # value types, beside `picture/`
    "discovery.py", "samplers/__init__.py", "families/__init__.py",  # discovery
}  # fmt: skip
ALL = {"task.py", "inputs.py", "drawing.py", "engine.py", "samplers/schedules.py", "samplers/euler.py"}
SCENES = ALL | {"families/scenes/family.py", "text/wordlist.py"}
CALLS = {
    "scenes": (SCENES, {}),
    "scenes, guided": (SCENES | {"guidance.py"}, {"guidance_scale": 3.0}),
    "toy": (ALL | {"family.py", "guidance.py"}, {}),
}


def counted(path):
    """A file as this test names it, or None where it does not count."""
    if path == TOY:
        return "family.py"
    if ROOT not in path.parents:
        return None
    name = path.relative_to(ROOT).as_posix()
    whole = name in UNCOUNTED or name.startswith(("nn/", "picture/")) or name.endswith("/model.py")
    return None if whole else name


def executed(work):
    """The counted files in which a function ran while `work` did, in whatever thread."""
    seen = set()

    def hook(frame, event, argument):
        if event == "call" and frame.f_code.co_name != "<module>":
            seen.add(frame.f_code.co_filename)

    threading.setprofile(hook)
    sys.setprofile(hook)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {name for path in seen if (name := counted(Path(path))) is not None}


@pytest.mark.parametrize("call", CALLS)
def test_files_from_prompt_to_png(call, tmp_path):
    expected, more = CALLS[call]
    made = TextToImage.from_preset(call.partition(",")[0])
    if made.family.name == "toy":  # its preset has no weights, so no digest yet
        made.save_to_preset(tmp_path / "toy")
        made = TextToImage.from_preset(tmp_path / "toy")
    files = executed(lambda: made.generate("a cat", seed=1, **more).save(tmp_path / "cat.png"))
    assert files == expected
    assert len(files) <= 8 + ("guided" in call)


def test_the_history_adds_its_own_files_only(tmp_path):
    made = TextToImage.from_preset("scenes")

    def keep():
        with History(None, tmp_path / "home") as history:
            history.open()  # its tables are made once, not for each picture
            return executed(lambda: made.generate("a cat", seed=1, num_steps=1, history=history))

    added = {"recording.py", "store.py", "blobs.py", "database.py"}
    assert keep() - SCENES == {f"history/{name}" for name in added}


def test_the_files_are_drawn_in_the_documentation():
    page = Path(__file__).parent.parent / "docs" / "architecture.md"
    text = page.read_text()
    for name in SCENES | {"guidance.py"}:
        assert f"`{name}`" in text, f"{page.name} does not name {name}"
