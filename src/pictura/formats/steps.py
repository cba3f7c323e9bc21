"""From the numbers of a tensor as they lie in a file to the tensor that a network wants."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Step", "Steps", "taken"]

# ("view", shape), ("permute", axes), ("rows", (from, to)), ("scale", (bits of a float32,)) or ("swap", ()),
# which exchanges the halves of the rows.
Step = tuple[str, tuple[int, ...]]
Steps = tuple[Step, ...]


def taken(flat: Tensor, steps: Sequence[Step]) -> Tensor:
    """`flat` (n) after `steps`, one after the other."""
    for kind, numbers in steps:
        if kind == "view":
            flat = flat.reshape(numbers)
        elif kind == "permute":
            flat = flat.permute(numbers)
        elif kind == "scale":
            flat = flat.float() * struct.unpack("<f", numbers[0].to_bytes(4, "little"))[0]
        elif kind == "rows":
            flat = flat[slice(*numbers)]
        else:
            flat = flat.roll(flat.shape[0] // 2, 0)
    return flat
