"""3x3 convolutions with a quarter of the multiplications (Winograd 1980; Lavin and Gray 2016).

F(4x4, 3x3): tiles of 6x6 inputs, four apart, become 4x4 outputs as Y = A'[(G g G') * (B' d B)]A. The products
of one place of all tiles with one place of the transformed weights are one matrix product, 36 in all.

Sizes: b pictures, t tiles, c channels read, o channels written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

OUT, SIDE = 4, 6  # sides of a tile of outputs and of inputs
BAND = 8 << 20  # bytes of transformed inputs at a time: more leaves the processor's caches
# Where the polynomials are evaluated, besides infinity. The usual 0, 1, -1, 2, -2 lose twice as much,
# measured against float64 (on choosing them: Barabasz et al. 2020).
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

Multiply = Callable[[Tensor, Tensor], Tensor]  # (36, t, c) with (36, o, c) -> (36, t, o)


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


@cache
def _transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    a, g, b = (torch.from_numpy(m).to(dtype) for m in toom_cook())
    return a, g, b


def both(m: Tensor, d: Tensor) -> Tensor:
    """m d m' for squares d (n, n, ...) -> (k, k, ...), with m (k, n)."""
    k, n = m.shape
    halfway = (m @ d.reshape(n, -1)).view(k, n, -1)
    return torch.matmul(m, halfway).view(k, k, *d.shape[2:])


def tiles(h: int, w: int) -> int:
    """How many tiles cover h x w outputs."""
    return -(-h // OUT) * -(-w // OUT)


def transform(weight: Tensor) -> Tensor:
    """(o, c, 3, 3) -> (36, o, c), four times the memory."""
    o, c = weight.shape[:2]
    return both(_transforms(weight.dtype)[1], weight.permute(2, 3, 0, 1)).view(SIDE * SIDE, o, c)


def convolve(x: Tensor, transformed: Tensor, bias: Tensor | None, multiply: Multiply) -> Tensor:
    """conv2d(x (b, c, h, w), weight, bias, padding=1) -> (b, o, h, w), channels last in memory."""
    b, c, h, w = x.shape
    o, rows, columns = transformed.shape[1], -(-h // OUT), -(-w // OUT)
    back, _, into = _transforms(x.dtype)
    last = x.permute(0, 2, 3, 1)
    found = x.new_empty(b, h, w, o)
    step = max(1, BAND // (SIDE * SIDE * c * columns * x.element_size() * b))
    for row in range(0, rows, step):
        n = min(step, rows - row)
        v = both(into, _places(last, row, n, columns)).flatten(0, 1)
        y = both(back, multiply(v, transformed).view(SIDE, SIDE, -1, o))
        y = y.view(OUT, OUT, b, n, columns, o).permute(2, 3, 0, 4, 1, 5)
        y = y.reshape(b, n * OUT, columns * OUT, o)[:, : h - row * OUT, :w]
        found[:, row * OUT : (row + n) * OUT] = y if bias is None else y + bias
    return found.permute(0, 3, 1, 2)


def _places(x: Tensor, row: int, n: int, columns: int) -> Tensor:
    """`n` rows of tiles of x (b, h, w, c), from the given one on -> (6, 6, t, c), zeros around."""
    h, w, c = x.shape[1:]
    top, bottom = row * OUT - 1, (row + n) * OUT + 1
    sides = (1, columns * OUT + 1 - w, max(0, -top), max(0, bottom - h))
    d = F.pad(x[:, max(0, top) : bottom], (0, 0, *sides))
    d = d.unfold(1, SIDE, OUT).unfold(2, SIDE, OUT)  # (b, rows, columns, c, 6, 6), a view
    return d.permute(4, 5, 0, 1, 2, 3).reshape(SIDE, SIDE, -1, c)
