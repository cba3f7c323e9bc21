"""Pictures as arrays, sheets and notebook cells."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pictura.errors import PicturaError
from pictura.picture import Picture, Pictures
from pictura.request import Request


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (6, 4), **more: object) -> Picture:
    return Picture(image=Image.new("RGB", size, colour), request=Request(prompt="a cat", seed=7), **more)  # type: ignore[arg-type]


def test_arrays() -> None:
    red = picture((255, 0, 0))
    assert np.asarray(red).shape == (4, 6, 3) and np.asarray(red).dtype == np.uint8
    assert np.asarray(red, dtype=np.float32).dtype == np.float32
    both = np.asarray(Pictures([red, picture((0, 0, 255))]))
    assert both.shape == (2, 4, 6, 3) and both[1, 0, 0].tolist() == [0, 0, 255]
    assert np.asarray(Pictures()).shape[0] == 0


def test_a_notebook_shows_the_same_pixels() -> None:
    red = picture((200, 10, 3))
    shown = Image.open(io.BytesIO(red._repr_png_()))
    assert np.array_equal(np.asarray(shown), np.asarray(red))
    assert repr(red) == "<Picture 6x4 'a cat' seed=7>"


def test_pictures_are_a_sequence() -> None:
    some = Pictures([picture((at, 0, 0)) for at in range(5)])
    assert len(some) == 5 and some[-1].image.getpixel((0, 0)) == (4, 0, 0)
    assert isinstance(some[1:3], Pictures) and len(some[1:3]) == 2


def test_the_grid_holds_every_picture_in_order() -> None:
    some = Pictures([picture((at * 40, 0, 0)) for at in range(5)])
    sheet = some.grid(columns=3, gap=2)
    assert sheet.size == (3 * 8 - 2, 2 * 6 - 2)
    corners = [sheet.getpixel((at % 3 * 8, at // 3 * 6)) for at in range(5)]
    assert corners == [(at * 40, 0, 0) for at in range(5)]
    assert sheet.getpixel((7, 0)) == (255, 255, 255)
    with pytest.raises(PicturaError):
        Pictures().grid()
