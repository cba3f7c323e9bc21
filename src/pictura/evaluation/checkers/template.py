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
SHIFT = 2  # where the aligned place does not fit well, these many pixels around it are tried
WELL = 0.93  # cosine of a good fit
ALIKE = 0.88  # least cosine of window and sprite to call it that sprite
FAINT = 40.0  # mean energy a pixel below which a window counts as background
COLOUR_REACH = 45.0  # a background farther than this from every colour is none of them

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Templates:
    """All sprites s with their pixels p in a row, and the sums that products with a background need."""

    colour: Floats  # (240, 1024 * 3) r
    cover: Floats  # (240, 1024) a
    colour2: Floats  # (240,) |r|^2
    crossed: Floats  # (240, 3) sum of r_c a
    cover2: Floats  # (240,) |a|^2
    total: Floats  # (240, 3) sum of r_c
    area: Floats  # (240,) sum of a


@functools.cache
def templates() -> Templates:
    small = sprites().reshape(-1, WINDOW, 2, WINDOW, 2, 4).astype(np.float32).mean((2, 4))
    small = _smooth(np.pad(small, ((0, 0), (1, 1), (1, 1), (0, 0))))[:, 1:-1, 1:-1]
    r = small[..., :3].reshape(len(small), -1, 3)
    a: Floats = small[..., 3].reshape(len(small), -1) / np.float32(255)
    return Templates(
        colour=np.ascontiguousarray(r.reshape(len(small), -1)),
        cover=a,
        colour2=(r**2).sum((1, 2)),
        crossed=np.einsum("spc,sp->sc", r, a),
        cover2=(a**2).sum(1),
        total=r.sum(1),
        area=a.sum(1),
    )


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows w of a picture, n of `area` pixels each: their sums and their products with every sprite."""

    area: int
    sums: Floats  # (n, 3) sum of w_c
    square: Floats  # (n,) |w|^2
    colour: Floats  # (n, 240) w.r
    cover: Floats  # (n, 240, 3) w_c.a

    def against(self, b: Floats, noise: float) -> tuple[Floats, Floats]:
        """(n, 240) gain and cosine over background `b`, the noise's share taken from the energy."""
        known = templates()
        signal = known.colour2 - 2 * known.crossed @ b + (b @ b) * known.cover2  # |t|^2
        product = self.colour - known.total @ b - self.cover @ b + (b @ b) * known.area  # d.t
        energy = self.square - 2 * self.sums @ b + self.area * (b @ b)  # |d|^2
        energy = np.maximum(energy - noise * 3 * self.area, energy / 2)
        return 2 * product - signal, product / np.sqrt(np.maximum(energy[:, None] * signal, 1))


def look(image: NDArray[np.uint8]) -> Sight:
    """What stands where in `image`, (h, w, 3) uint8 of any side; it is brought to 64 px first."""
    raw = _shrink(image)
    picture = _smooth(raw)
    noise = _noise(raw) * (3 / 8) ** 2  # the share of white noise that smoothing leaves
    aligned = _windows(picture, [(y // 2, x // 2) for y in CENTRES for x in CENTRES])
    best: tuple[float, Floats, tuple[Sighting, ...]] | None = None
    for background in _backgrounds(picture):
        found, explained = _explain(aligned, background, noise)
        left = float(((picture - background) ** 2).sum()) - explained
        if best is None or left < best[0]:
            best = left, background, found
    assert best is not None
    _, background, found = best
    return Sight(tuple(_refined(picture, s, background, noise) for s in found), _name(background))


def _shrink(image: NDArray[np.uint8]) -> Floats:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a picture (h, w, 3), got {image.shape}")
    if image.shape[:2] != (SIZE, SIZE):
        image = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX))
    return image.astype(np.float32)


def _smooth(pictures: Floats) -> Floats:
    """(..., h, w, c) with weights 1/4, 1/2, 1/4 both ways: small shifts and fine texture count less."""
    flat = [(0, 0)] * (pictures.ndim - 3)
    p = np.pad(pictures, [*flat, (1, 1), (1, 1), (0, 0)], mode="edge")
    p = p[..., :-2, :, :] + 2 * p[..., 1:-1, :, :] + p[..., 2:, :, :]
    smoothed: Floats = (p[..., :-2, :] + 2 * p[..., 1:-1, :] + p[..., 2:, :]) / np.float32(16)
    return smoothed


def _windows(picture: Floats, centres: list[tuple[int, int]]) -> Windows:
    known, half = templates(), WINDOW // 2
    pixels = np.stack([picture[y - half : y + half, x - half : x + half] for y, x in centres])
    pixels = pixels.reshape(len(centres), -1, 3)
    planes = pixels.transpose(0, 2, 1).reshape(-1, pixels.shape[1])
    cover = (planes @ known.cover.T).reshape(len(centres), 3, -1).transpose(0, 2, 1)
    return Windows(
        area=pixels.shape[1],
        sums=pixels.sum(1),
        square=np.einsum("npc,npc->n", pixels, pixels),
        colour=pixels.reshape(len(centres), -1) @ known.colour.T,
        cover=cover,
    )


def _noise(picture: Floats) -> float:
    """Variance of the noise: the median of what a plane through the neighbours leaves (median, because edges
    of objects are not noise)."""
    centre = picture[1:-1, 1:-1] * 4 - 2 * (picture[:-2, 1:-1] + picture[2:, 1:-1])
    centre -= 2 * (picture[1:-1, :-2] + picture[1:-1, 2:])
    centre += picture[:-2, :-2] + picture[:-2, 2:] + picture[2:, :-2] + picture[2:, 2:]
    return (float(np.median(np.abs(centre))) / 0.6745 / 6) ** 2


def _backgrounds(picture: Floats) -> list[Floats]:
    """Colours the background may have: each of the eight that enough pixels are near to, as it is in this
    picture, and the commonest colour whatever it is."""
    pixels = picture.reshape(-1, 3)
    coarse = (pixels // 16).astype(np.int64) @ np.array([256, 16, 1])
    tried: list[Floats] = [pixels[coarse == np.bincount(coarse).argmax()].mean(0)]
    for nominal in COLOURS.values():
        near = pixels[((pixels - np.array(nominal, np.float32)) ** 2).sum(1) < COLOUR_REACH**2]
        if len(near) >= 0.01 * len(pixels) and all(np.abs(near.mean(0) - t).max() > 3 for t in tried):
            tried.append(near.mean(0))
    return tried


def _explain(aligned: Windows, background: Floats, noise: float) -> tuple[tuple[Sighting, ...], float]:
    """Sprites laid one after the other, the one that explains most first, none over another.

    Returns what was found and the energy that explains.
    """
    gain, cosine = aligned.against(background, noise)
    free = np.ones(len(gain), bool)
    found, explained = [], 0.0
    while free.any():
        place, thing = divmod(int(np.where(free[:, None], gain, -np.inf).argmax()), gain.shape[1])
        if gain[place, thing] < FAINT * WINDOW**2:
            break
        y, x = (CENTRES[i] for i in divmod(place, len(CENTRES)))
        found.append(Sighting(thing, x, y, float(cosine[place, thing])))
        explained += float(gain[place, thing])
        free &= ~_overlaps(x, y)
    return tuple(found), explained


def _refined(picture: Floats, seen: Sighting, background: Floats, noise: float) -> Sighting:
    """The same if it fits well, else the best fit at most `SHIFT` pixels away; None where none is alike."""
    if seen.score >= WELL:
        return seen
    y, x = seen.y // 2, seen.x // 2
    framed = np.pad(picture, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    steps = range(2 * SHIFT + 1)
    shifted = _windows(framed, [(y + dy, x + dx) for dy in steps for dx in steps])
    gain, cosine = shifted.against(background, noise)
    step, thing = divmod(int(gain.argmax()), gain.shape[1])
    alike = float(cosine[step, thing])
    return Sighting(thing if alike >= ALIKE else None, seen.x, seen.y, alike)


def _overlaps(x: int, y: int) -> NDArray[np.bool_]:
    """(25,): places whose object would touch the one at (x, y)."""
    c = np.array(CENTRES)
    near: NDArray[np.bool_] = (np.abs(c[:, None] - y) < OBJECT) & (np.abs(c[None] - x) < OBJECT)
    return near.ravel()


def _name(background: Floats) -> str | None:
    far = {name: float(np.linalg.norm(background - np.array(c))) for name, c in COLOURS.items()}
    nearest = min(far, key=lambda name: far[name])
    return nearest if far[nearest] < COLOUR_REACH else None
