"""Weights of eight bits with a factor beside them, as "fp8 scaled" files hold them.

`X.weight` is float8, `X.scale_weight` one float32 by which every number of it is to be multiplied;
`X.scale_input` is for computing in eight bits, which Pictura does not, and a tensor `scaled_fp8` marks it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from pictura.errors import CheckpointError, shown
from pictura.formats.reading import opened
from pictura.formats.safetensors import Entry

__all__ = ["unscaled"]

_FACTOR, _INPUT, _MARK = ".scale_weight", ".scale_input", "scaled_fp8"


def unscaled(entries: Mapping[str, Entry], *, root: Path | None = None) -> dict[str, Entry]:
    """`entries` with every factor as a step of the weight that it belongs to; without factors as they are.

    CheckpointError where a factor belongs to nothing or is none.
    """
    factors = {name for name in entries if name.endswith(_FACTOR)}
    if not factors:
        return dict(entries)
    kept = {
        name: entry
        for name, entry in entries.items()
        if name not in factors and not name.endswith(_INPUT) and name.rpartition(".")[2] != _MARK
    }
    for name in sorted(factors):
        weight, factor = f"{name.removesuffix(_FACTOR)}.weight", entries[name]
        if weight not in kept or factor.dtype != "F32" or math.prod(factor.shape) != 1:
            raise CheckpointError(
                f"tensor {shown(name)} in {str(factor.file)!r} is no factor of a weight; get the file again"
            )
        with opened(factor.file, root) as file:
            file.seek(factor.start)
            bits = int.from_bytes(file.read(4), "little")
        entry = kept[weight]
        kept[weight] = entry._replace(steps=(("view", entry.shape), ("scale", (bits,))))
    return kept
