"""Cut the sprite atlas of the scenes data set from Noto Color Emoji.

python scripts/make_sprites.py [FONT.ttf]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFont

from pictura.datasets.scenes.grammar import OBJECT, things
from pictura.datasets.scenes.render import COLUMNS, cut_sprite

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"


def main() -> None:
    font = ImageFont.truetype(sys.argv[1] if len(sys.argv) > 1 else FONT, 109)
    rows = -(-len(things()) // COLUMNS)
    atlas = np.zeros((rows * OBJECT, COLUMNS * OBJECT, 4), np.uint8)
    for i, thing in enumerate(things()):
        y, x = i // COLUMNS * OBJECT, i % COLUMNS * OBJECT
        atlas[y : y + OBJECT, x : x + OBJECT] = cut_sprite(font, thing.codepoint)
    target = Path(__file__).parents[1] / "src/pictura/datasets/scenes/sprites.png"
    Image.fromarray(atlas, "RGBA").save(target, optimize=True)
    print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
