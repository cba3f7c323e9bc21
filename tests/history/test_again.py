"""The command line and the Python that a picture's page shows really make it again."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from pictura import Request, TextToImage
from pictura.cli.app import run
from pictura.history import again
from pictura.picture import Picture

CALLS = {
    "plain": {"inputs": "a cat"},
    "all": {
        "inputs": 'it\'s "a" $HOME `cat`\n两',
        "negative_prompts": "-dogs",
        "num_steps": 3,
        "guidance_scale": 2.5,
        "sampler": "heun",
        "schedule": "karras",
    },
    "like an option": {"inputs": "--help"},
    "empty": {"inputs": ""},
    "with choices": {"inputs": "a {red|blue} cat", "prompt_syntax": "a1111"},
    "refused": {"inputs": "a cat", "size": "16x16", "eta": 0.25, "strict": False},
}


@pytest.fixture(scope="module")
def model():
    return TextToImage.from_preset("toy")


@pytest.mark.parametrize("call", CALLS)
def test_both_make_the_same_picture(call, model, tmp_path):
    made = model.generate(**CALLS[call], seed=2**62 + 1)
    strict = not made.ignored
    words = shlex.split(again.command(made.request, strict=strict))
    assert words[0] == "pictura" and run([*words[1:2], f"--out={tmp_path / 'a.png'}", *words[2:]]) == 0
    names = {}
    exec(again.python(made.request, strict=strict), names)
    for other in (Picture.open(tmp_path / "a.png"), names["picture"]):
        assert other.request == made.request
        np.testing.assert_array_equal(np.asarray(other), np.asarray(made))


@pytest.mark.parametrize("value", ["1", "true", "null", "a=b", "", "[", '"', "é", "x y", 1, 0.5, None, True])
def test_options_come_back_as_they_were(value):
    from pictura.options import parsed_options

    request = Request(prompt="", options={"given": value, "nested": [{"path": "/a b", "weight": 0.5}]})
    words = shlex.split(again.command(request))
    pairs = [word.removeprefix("--option=") for word in words if word.startswith("--option=")]
    known = {name: given for name, given in request.to_dict()["options"].items() if given is not None}
    assert parsed_options(pairs, ()) == known
