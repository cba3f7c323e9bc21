"""3x3 convolutions with fewer multiplications (Winograd 1980; Lavin and Gray 2016).

F(4x4, 3x3): tiles of 6x6 inputs, four apart, become 4x4 outputs as Y = A'[(G g G') * (B' d B)]A. The products
of one place of all tiles with that place of the transformed weights are one matrix product, 36 in all where
the direct way has 144.

A map whose values are first repeated to twice the sides needs fewer still. Its even and its odd rows are each
a filter of two taps on the small map, sums of the three. An odd row and the even one below it read the same
two rows, so one tile of 5x5 inputs becomes 4x4 outputs of all four phases, F(4x4, 2x2): 100 products, 576 the
direct way.

Sizes: b pictures, t tiles, c channels read, o channels written, n places along a tile's side, f phases along
a side (1, or 2 where the map grows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from pictura.nn import memory

OUT = 4  # outputs along the side of a tile, of one phase
TILES = 128  # products at a time: as many as they need to be quick, and no more than caches hold
BAND = 4 << 20  # bytes of inputs at a time, likewise
# Where the polynomials are evaluated, besides infinity. The usual 0, 1, -1, 2, -2 lose twice as much,
# measured against float64 (on choosing them: Barabasz et al. 2020).
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
# Each phase's taps as sums of the three: an odd row, and the even one below it.
PHASES = {1: np.eye(3)[None], 2: np.array([[[1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 1]]])}

Multiply = Callable[[Tensor], Tensor]  # (t, nn, c) -> (t, nn, ffo), always as many tiles
Fill = Callable[[Tensor, Tensor], object]  # rows of the map, (b, c, h, w), and where to write them, prepared


def toom_cook(points: tuple[float, ...] = POINTS, out: int = OUT) -> tuple[np.ndarray, ...]:
    """A' (out, n), G (n, 3) and B' (n, n) in float64, n = number of points + 1 (Toom 1963; Cook 1966)."""
    finite, n = np.array(points), len(points) + 1
    a, g, b = np.zeros((out, n)), np.zeros((n, n - out + 1)), np.zeros((n, n))
    for j, point in enumerate(finite):
        others = np.delete(finite, j)
        a[:, j] = point ** np.arange(out)
        g[j] = point ** np.arange(n - out + 1) / np.prod(point - others)
        b[j, : n - 1] = np.poly(others)[::-1]
    a[-1, -1] = g[-1, -1] = 1
    b[-1] = np.poly(finite)[::-1]
    return a, g, b


@dataclass(frozen=True, kw_only=True)
class Method:
    """The matrices for one number of phases; `ones` is what A' turns into ones."""

    f: int
    back: Tensor  # A' (4, n)
    weights: Tensor  # G of each phase (f, n, 3)
    into: Tensor  # B' (n, n)
    ones: Tensor  # (n,)

    @property
    def n(self) -> int:
        return len(self.into)

    def rows(self, size: int) -> int:
        """How many tiles cover as many rows, or columns, of the map read."""
        return -(-(self.f * size + self.f - 1) // (self.f * OUT))

    def tiles(self, h: int, w: int) -> int:
        return self.rows(h) * self.rows(w)


@cache
def method(f: int = 1, dtype: torch.dtype = torch.float32) -> Method:
    a, g, b = toom_cook(POINTS if f == 1 else POINTS[:-1])
    ones = np.linalg.lstsq(a, np.ones(OUT), rcond=None)[0]
    back, weights, into, ones = (torch.from_numpy(m).to(dtype) for m in (a, g @ PHASES[f], b, ones))
    return Method(f=f, back=back, weights=weights, into=into, ones=ones)


def transform(weight: Tensor, f: int = 1) -> Tensor:
    """(o, c, 3, 3) -> (nn, ffo, c), four times the memory, eleven where the map grows."""
    o, c = weight.shape[:2]
    g = method(f, weight.dtype).weights
    both = torch.einsum("apy,bqx->pqabyx", g, g).reshape(-1, 9)
    found = memory.empty((len(both), o * c), weight.dtype)
    return torch.mm(both, weight.permute(2, 3, 0, 1).reshape(9, -1), out=found).view(-1, f * f * o, c)


def spread(bias: Tensor, f: int = 1) -> Tensor:
    """What added to the products (nn, ffo) adds the bias (o,) to every output."""
    ones = method(f, bias.dtype).ones
    return torch.outer(torch.outer(ones, ones).flatten(), bias.repeat(f * f))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a map (b, c, h, w) is taken apart: products of `step` rows of tiles at a time, and bands of a few
    times as many rows, each a part of the work that needs nothing of the others."""

    m: Method
    b: int
    h: int
    w: int
    step: int
    bands: tuple[tuple[int, int], ...]

    @property
    def tiles(self) -> int:
        """Of one product."""
        return self.b * self.step * self.m.rows(self.w)


def plan(x: Tensor, m: Method) -> Plan:
    b, c, h, w = x.shape
    rows = m.rows(h)
    parts = -(-rows * b * m.rows(w) * m.f // TILES)
    step = -(-rows // min(parts, rows))
    band = max(1, BAND // (OUT * b * w * c * x.element_size()) // step) * step
    bands = tuple((row, min(row + band, rows)) for row in range(0, rows, band))
    return Plan(m=m, b=b, h=h, w=w, step=step, bands=bands)


def convolve(
    x: Tensor,
    found: Tensor,
    plan: Plan,
    band: tuple[int, int],
    multiply: Multiply,
    fill: Fill,
    add: bool = False,
) -> None:
    """A band of conv2d(x (b, c, h, w), weight, bias, padding=1), or of x doubled, written into its place in
    `found` (b, o, fh, fw), or added to what is there; both with channels last in memory."""
    (b, c, h, w), (first, end), m = x.shape, band, plan.m
    columns, size = m.rows(w), (end - first) * OUT + m.n - OUT
    # One row and one column before the first tile, and as many columns that each is a multiple of four.
    room = x.new_empty(b, size, (columns + 1) * OUT, c)
    above, below = OUT * first - 1, OUT * first - 1 + size
    skipped, kept = max(0, -above), size - max(0, below - h)
    room[:, :skipped] = room[:, kept:] = 0
    room[:, :, 0] = room[:, :, w + 1 :] = 0
    fill(x[:, :, above + skipped : above + kept], room[:, skipped:kept, 1 : w + 1].permute(0, 3, 1, 2))
    along = _along(room, m)
    v = x.new_empty(plan.tiles, m.n * m.n, c)
    for row in range(first, end, plan.step):
        rows = min(plan.step, end - row)
        tiles = b * rows * columns
        v[tiles:] = 0
        _across(along[:, (row - first) * OUT :, :columns], m, v[:tiles].view(b, rows, columns, m.n, m.n * c))
        y = multiply(v)[:tiles].view(b, rows, columns, m.n, m.n, -1)
        _back(y, found.permute(0, 2, 3, 1), row, m, add)


def _along(room: Tensor, m: Method) -> Tensor:
    """d B of all rows (b, size, 4 columns + 4, c) -> (b, size, columns + 1, n, c), the last for nothing: it
    reads on into the next row."""
    b, size, wide, c = room.shape
    count = b * size * wide // OUT - 1
    found = room.new_empty(b, size, wide // OUT, m.n, c)
    every_fourth = room.as_strided((count, m.n, c), (OUT * c, c, 1))
    torch.bmm(m.into.expand(count, m.n, m.n), every_fourth, out=found.view(-1, m.n, c)[:count])
    return found


def _across(along: Tensor, m: Method, v: Tensor) -> None:
    """B' (d B) of rows (b, size, columns, n, c) into v (b, rows, columns, n, nc)."""
    b, rows, columns = v.shape[:3]
    for picture in range(b):
        for row in range(rows):
            part = along[picture, row * OUT : row * OUT + m.n].flatten(2).transpose(0, 1)
            torch.bmm(m.into.expand(columns, m.n, m.n), part, out=v[picture, row])


def _back(y: Tensor, found: Tensor, first: int, m: Method, add: bool) -> None:
    """A' y A of all tiles (b, rows, columns, n, n, ffo) into found (b, fh, fw, o)."""
    b, rows, columns, n, f = *y.shape[:4], m.f
    along = torch.bmm(m.back.expand(b * rows * columns * n, OUT, n), y.view(-1, n, y.shape[-1]))
    along = along.view(b * rows * columns, n, -1)
    across = torch.bmm(m.back.expand(len(along), OUT, n), along).view(b, rows, columns, OUT, OUT, f, f, -1)
    for picture in range(b):
        for row in range(rows):
            values = across[picture, row].permute(3, 1, 0, 2, 4, 5)  # (f, 4, columns, 4, f, o)
            for phase in range(f):
                top = f * OUT * (first + row) - (f - 1) + phase
                above = 1 if top < 0 else 0
                lines = found[picture, top + above * f : top + f * OUT : f]
                _put(lines, values[phase, above : above + len(lines)], f - 1, add)


def _put(lines: Tensor, values: Tensor, cut: int, add: bool) -> None:
    """Lines of tiles (h, t, 4, f, o), without the first `cut` places, into, or onto, lines (h, w, o)."""
    write = Tensor.add_ if add else Tensor.copy_
    side, at = values.shape[2] * values.shape[3], 0
    if cut:
        part = values[:, 0].flatten(1, 2)[:, cut : cut + lines.shape[1]]
        write(lines[:, : part.shape[1]], part)
        values, at = values[:, 1:], part.shape[1]
    whole = (lines.shape[1] - at) // side
    end = at + whole * side
    write(lines[:, at:end].unflatten(1, (whole, *values.shape[2:4])), values[:, :whole])
    if end < lines.shape[1]:
        write(lines[:, end:], values[:, whole].flatten(1, 2)[:, : lines.shape[1] - end])
