"""Covering arrays of strength two: few rows in which every pair of values of every two variables occurs.

Lei and Tai 1998, "In-parameter-order: a test generation strategy for pairwise testing": the rows of the two
largest variables are all their pairs; each further variable first extends every row by the value that covers
most open pairs, then rows are added for the pairs that are left. Ties go to the smallest value, so that equal
input gives equal rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["pairwise_rows"]

FREE = -1  # a place in a row that any value may take


def pairwise_rows(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Rows of value numbers, column i below `sizes[i]`, in which every pair of every two columns occurs."""
    order = sorted(range(len(sizes)), key=lambda at: -sizes[at])
    if len(order) < 2:
        return [(value,) for size in sizes for value in range(size)]
    first, second = order[:2]
    rows = [[a, b] for a in range(sizes[first]) for b in range(sizes[second])]
    for done in range(2, len(order)):
        rows = _extended(rows, [sizes[at] for at in order[: done + 1]])
    # A place that is still free may hold anything; going round the values treats them alike.
    found = []
    for number, row in enumerate(rows):
        values = [0] * len(order)
        for at, value in zip(order, row, strict=True):
            values[at] = number % sizes[at] if value == FREE else value
        found.append(tuple(values))
    return found


def _extended(rows: list[list[int]], sizes: Sequence[int]) -> list[list[int]]:
    """`rows`, which cover all columns but the last, with the last one covered too."""
    *before, size = sizes
    open_pairs = [np.ones((other, size), bool) for other in before]  # [column][its value, our value]
    used = np.zeros(size, int)
    for row in rows:
        gain = np.zeros(size, int)
        for pairs, value in zip(open_pairs, row, strict=True):
            if value != FREE:
                gain += pairs[value]
        best = int(np.lexsort((np.arange(size), used, -gain))[0])
        used[best] += 1
        for pairs, value in zip(open_pairs, row, strict=True):
            if value != FREE:
                pairs[value, best] = False
        row.append(best)
    return rows + _added(open_pairs, len(before), size)


def _added(open_pairs: Sequence[np.ndarray], columns: int, size: int) -> list[list[int]]:
    """Rows for the pairs that are left: as many columns of a row at once as have one with the same value."""
    added = []
    for ours in range(size):
        left = [list(np.flatnonzero(pairs[:, ours])) for pairs in open_pairs]
        for at in range(max(map(len, left), default=0)):
            values = [int(column[at]) if at < len(column) else FREE for column in left]
            added.append([*values, ours])
    return added
