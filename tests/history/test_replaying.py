"""A picture made again: the same, or what is different."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from pictura import Request, TextToImage
from pictura.errors import FileError
from pictura.history.replaying import replay, sentences


def test_the_same_picture(history, picture):
    entry = history.add(picture())
    again = replay(entry, lambda then: then)
    assert again.identical and again.differences == {}


def test_every_difference_is_shown(history, picture):
    made = picture()
    entry = history.add(made)
    other = made.image.copy()
    other.putpixel((1, 2), (made.image.getpixel((1, 2))[0] ^ 3, 0, 0))
    changed = Request.from_dict({**made.request.to_dict(), "num_steps": 5})

    def draw(then):
        assert then.request == made.request
        return then.amended(image=other, model_digest="1" * 64, version="9", request=changed)

    again = replay(entry, draw)
    most = max(3, *(made.image.getpixel((1, 2))[1:]))
    assert not again.identical and again.differences == {
        "pixels": {"differing": 1, "of": 48, "most": most},
        "request": {"num_steps": {"then": 4, "now": 5}},
        "model_digest": {"then": "0" * 64, "now": "1" * 64},
        "version": {"then": made.version, "now": "9"},
    }
    assert json.loads(json.dumps(again.differences)) == again.differences
    told = sentences(again.differences)
    assert told[0] == f"1 of 48 pixels differ, by at most {most} of 255" and len(told) == 4


def test_another_size(history, picture):
    entry = history.add(picture())
    again = replay(entry, lambda then: then.amended(image=Image.new("RGB", (6, 8))))
    assert again.differences == {"size": {"then": [8, 6], "now": [6, 8]}} and not again.identical
    assert sentences(again.differences) == ["it was 8x6 pixels, made again 6x8"]


def test_a_new_version_with_the_same_pixels_is_identical(history, picture):
    again = replay(history.add(picture()), lambda then: then.amended(version="9"))
    assert again.identical and list(again.differences) == ["version"]


def test_a_lost_picture(history, picture):
    entry = history.add(picture())
    entry.path.unlink()
    with pytest.raises(FileError):
        replay(entry, lambda then: then)


def test_with_a_model(history):
    model = TextToImage.from_preset("scenes")
    entry = history.add(model.generate("a cat", seed=5, num_steps=2))
    assert replay(entry, lambda then: model.generate(then.request)).identical
    other = Request.from_dict({**entry.request.to_dict(), "seed": 6})
    assert not replay(entry, lambda then: model.generate(other)).identical
