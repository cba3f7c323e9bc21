"""Draw a scene and say what lies under every patch.

The sprites are glyphs of Noto Color Emoji (SIL Open Font License 1.1, see `OFL.txt`), cut once from the
font by `scripts/make_sprites.py` and shipped as one atlas, so that pictures do not depend on the font
version of a machine.
"""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .grammar import CANVAS, COLOURS, OBJECT, PATCH, Scene, things

COLUMNS = 16  # sprites in a row of the atlas
NONE = 240  # label of a patch without an object
WHOLE = (OBJECT // PATCH) ** 2  # 16 pieces an object; also the piece label of a patch without one

Array = NDArray[np.uint8]


@functools.cache
def sprites() -> Array:
    """(240, 64, 64, 4) uint8, premultiplied alpha."""
    with resources.files(__package__).joinpath("sprites.png").open("rb") as file:
        atlas = np.asarray(Image.open(file).convert("RGBA"))
    rows = atlas.reshape(-1, OBJECT, COLUMNS, OBJECT, 4).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1, OBJECT, OBJECT, 4)[: len(things())])


def cut_sprite(font: ImageFont.FreeTypeFont, codepoint: int) -> Array:
    """(64, 64, 4) uint8 premultiplied: the glyph at 109 px, cropped, centred in a square, Lanczos to 64."""
    glyph = Image.new("RGBA", (218, 218))
    ImageDraw.Draw(glyph).text((20, 20), chr(codepoint), font=font, embedded_color=True)
    glyph = glyph.crop(glyph.getbbox())
    side = max(glyph.size)
    square = Image.new("RGBA", (side, side))
    square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
    pixels = np.asarray(square).astype(np.float32)
    pixels[..., :3] *= pixels[..., 3:] / 255  # premultiplied, so that resizing draws no fringe
    channels = [
        Image.fromarray(pixels[..., c]).resize((OBJECT, OBJECT), Image.Resampling.LANCZOS) for c in range(4)
    ]
    small = np.stack([np.asarray(c) for c in channels], -1).round().clip(0, 255)
    small[..., :3] = np.minimum(small[..., :3], small[..., 3:])
    return small.astype(np.uint8)


def render(scene: Scene) -> Array:
    """(128, 128, 3) uint8."""
    canvas = np.empty((CANVAS, CANVAS, 3), np.uint8)
    canvas[:] = COLOURS[scene.background]
    atlas = sprites()
    for thing, x, y in scene.drawn():
        sprite = atlas[thing]
        top, left = y - OBJECT // 2, x - OBJECT // 2
        part = canvas[top : top + OBJECT, left : left + OBJECT]
        faded = part * (255 - sprite[..., 3:].astype(np.uint16)) + 127
        part[:] = np.minimum(faded // 255 + sprite[..., :3], 255)
    return canvas


def labels(scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(64,) object under each patch (0..239, 240 = none) and (64,) which of its pieces (0..15, 16 = none),
    patches in reading order; the later object wins."""
    side, pieces = CANVAS // PATCH, OBJECT // PATCH
    objects = np.full((side, side), NONE, np.int64)
    parts = np.full((side, side), WHOLE, np.int64)
    for thing, x, y in scene.drawn():
        row, column = (y - OBJECT // 2) // PATCH, (x - OBJECT // 2) // PATCH
        objects[row : row + pieces, column : column + pieces] = thing
        parts[row : row + pieces, column : column + pieces] = np.arange(WHOLE).reshape(pieces, pieces)
    return objects.ravel(), parts.ravel()
