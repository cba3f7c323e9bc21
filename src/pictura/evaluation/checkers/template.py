"""Template matching: which sprite, laid over the background, explains the pixels of each place best.

Works at 64 px. For a window w, a background b and a sprite with premultiplied colour r and coverage a,
the composite is b (1 - a) + r, so the sprite's signal over the background is t = r - b a and the window's
is d = w - b. Laying the sprite there explains 2 d.t - |t|^2 of the energy |d|^2 (`gain`), and the cosine of
d and t says how alike they are, whatever the contrast. Both need only products of w with r and a, taken
once a picture: trying several backgrounds costs nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictura.datasets.scenes.grammar import COLOURS, OBJECT
from pictura.datasets.scenes.render import sprites

from . import Sight, Sighting

SIZE = 64  # pictures are matched at this side
WINDOW = OBJECT // 2  # an object at that size
CENTRES = (32, 48, 64, 80, 96)  # aligned places on the canvas, each axis
ALIKE = 0.80  # least cosine of window and sprite to call it that sprite
FAINT = 60.0  # mean energy a pixel below which a window counts as background
COLOUR_REACH = 45.0  # a background farther than this from every colour is none of them

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Templates:
    colour: Floats  # (240, 1024 * 3)
    cover: Floats  # (240, 1024)
    colour2: Floats  # (240,) |r|^2
    crossed: Floats  # (240, 3) sum of r_c a
    cover2: Floats  # (240,) |a|^2


@functools.cache
def templates() -> Templates:
    small = sprites().reshape(-1, WINDOW, 2, WINDOW, 2, 4).astype(np.float32).mean((2, 4))
    colour = np.ascontiguousarray(small[..., :3].reshape(len(small), -1))
    cover = np.ascontiguousarray(small[..., 3].reshape(len(small), -1)) / np.float32(255)
    crossed = np.einsum("spc,sp->sc", colour.reshape(len(small), -1, 3), cover)
    return Templates(colour, cover, (colour**2).sum(1), crossed, (cover**2).sum(1))


def look(image: NDArray[np.uint8]) -> Sight:
    """What stands where in `image`, (h, w, 3) uint8 of any side; it is brought to 64 px first."""
    picture = _shrink(image)
    windows = _windows(picture)
    known = templates()
    with_colour = windows.reshape(len(windows), -1) @ known.colour.T  # (25, 240)
    with_cover = np.einsum("wpc,sp->wsc", windows, known.cover, optimize=True)  # (25, 240, 3)
    best: tuple[float, Floats, tuple[Sighting, ...]] | None = None
    for background in _backgrounds(picture):
        found, explained = _explain(background, windows, with_colour, with_cover)
        left = float(((picture - background) ** 2).sum()) - explained
        if best is None or left < best[0]:
            best = left, background, found
    assert best is not None
    return Sight(best[2], _name(best[1]))


def _shrink(image: NDArray[np.uint8]) -> Floats:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a picture (h, w, 3), got {image.shape}")
    if image.shape[:2] != (SIZE, SIZE):
        image = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX))
    return image.astype(np.float32)


def _windows(picture: Floats) -> Floats:
    """(25, 1024, 3): the window around every aligned place, in reading order."""
    starts = [c // 2 - WINDOW // 2 for c in CENTRES]
    cut = [picture[y : y + WINDOW, x : x + WINDOW] for y in starts for x in starts]
    return np.stack(cut).reshape(len(cut), -1, 3)


def _backgrounds(picture: Floats) -> list[Floats]:
    """Colours the background may have: each of the eight that enough pixels are near to, as it is in this
    picture, and the commonest colour whatever it is."""
    pixels = picture.reshape(-1, 3)
    coarse = (pixels // 16).astype(np.int64) @ np.array([256, 16, 1])
    commonest = pixels[coarse == np.bincount(coarse).argmax()].mean(0)
    tried = [commonest]
    for nominal in COLOURS.values():
        near = pixels[np.linalg.norm(pixels - np.float32(nominal), axis=1) < COLOUR_REACH]
        if len(near) >= 0.01 * len(pixels):
            tried.append(np.median(near, axis=0))
    return tried


def _explain(
    background: Floats, windows: Floats, with_colour: Floats, with_cover: Floats
) -> tuple[tuple[Sighting, ...], float]:
    """Sprites laid one after the other, the one that explains most first, none over another.

    Returns what was found and the energy that explains.
    """
    known = templates()
    b = background.astype(np.float32)
    energy = ((windows - b) ** 2).sum((1, 2))  # (25,) |d|^2
    signal = known.colour2 - 2 * known.crossed @ b + (b @ b) * known.cover2  # (240,) |t|^2
    totals = known.colour.reshape(len(known.colour), -1, 3).sum(1)  # (240, 3)
    areas = known.cover.sum(1)
    product = with_colour - totals @ b - with_cover @ b + (b @ b) * areas  # (25, 240) d.t
    gain = 2 * product - signal
    cosine = product / np.sqrt(np.maximum(energy[:, None] * signal, 1))
    floor = FAINT * windows.shape[1]
    free = np.ones(len(windows), bool)
    found, explained = [], 0.0
    while free.any():
        place, thing = divmod(int(np.where(free[:, None], gain, -np.inf).argmax()), gain.shape[1])
        if gain[place, thing] < floor:
            break
        y, x = (CENTRES[i] for i in divmod(place, len(CENTRES)))
        alike = float(cosine[place, thing])
        found.append(Sighting(thing if alike >= ALIKE else None, x, y, alike))
        explained += float(gain[place, thing])
        free &= ~_overlaps(x, y)
    return tuple(found), explained


def _overlaps(x: int, y: int) -> NDArray[np.bool_]:
    """(25,): places whose object would touch the one at (x, y)."""
    c = np.array(CENTRES)
    near: NDArray[np.bool_] = (np.abs(c[:, None] - y) < OBJECT) & (np.abs(c[None] - x) < OBJECT)
    return near.ravel()


def _name(background: Floats) -> str | None:
    far = {name: float(np.linalg.norm(background - np.float32(c))) for name, c in COLOURS.items()}
    nearest = min(far, key=lambda name: far[name])
    return nearest if far[nearest] < COLOUR_REACH else None
