"""Covering arrays of strength two: few rows in which every pair of values of every two variables occurs.

The greedy construction of Cohen, Dalal, Fredman and Patton 1997, "The AETG system: an approach to testing
based on combinatorial design", without its random choices: a row begins with the value that most open pairs
wait for, and goes on with the value that closes most pairs with those chosen before. Ties go to the value
that more pairs wait for, then to the smallest, so that equal input gives equal rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["pairwise_rows"]


def pairwise_rows(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Rows of value numbers, column i below `sizes[i]`, in which every pair of every two columns occurs."""
    columns = range(len(sizes))
    if len(sizes) < 2:
        return [(value,) for size in sizes for value in range(size)]
    # pairs[i][j][a, b]: nobody has a in column i and b in column j yet; waits[i][a]: how many of those a has.
    pairs = [[np.ones((sizes[i], sizes[j]), bool) for j in columns] for i in columns]
    total = sum(sizes)
    waits = [np.full(sizes[i], total - sizes[i]) for i in columns]
    rows = []
    while any(wait.any() for wait in waits):
        row = _row(sizes, pairs, waits)
        for i in columns:
            for j in range(i):
                if pairs[i][j][row[i], row[j]]:
                    pairs[i][j][row[i], row[j]] = pairs[j][i][row[j], row[i]] = False
                    waits[i][row[i]] -= 1
                    waits[j][row[j]] -= 1
        rows.append(tuple(row))
    return sorted(rows)


def _row(
    sizes: Sequence[int], pairs: Sequence[Sequence[NDArray[np.bool_]]], waits: Sequence[NDArray[np.int64]]
) -> list[int]:
    row = [0] * len(sizes)
    chosen: list[int] = []
    for column in sorted(range(len(sizes)), key=lambda i: -waits[i].max()):
        closed = np.zeros(sizes[column], np.int64)
        for other in chosen:
            closed += pairs[other][column][row[other]]
        row[column] = int(np.argmax(closed * (1 + sum(sizes)) + waits[column]))
        chosen.append(column)
    return row
