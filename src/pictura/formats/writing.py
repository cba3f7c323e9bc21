"""Weights as safetensors files: written whole or not at all, the same tensors always as the same bytes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pictura.formats.safetensors import DTYPES, Entry, as_bytes, fill
from pictura.picture.files import atomic, sha256

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Writable = Mapping[str, Tensor | "Pending"]

__all__ = ["SHARD", "Pending", "digest", "live_digest", "write"]

SHARD = 2_000_000_000  # bytes of tensors in one file
# Largest elements first keeps every tensor aligned; the reference writer puts tensors in this very order.
_ORDER = list(DTYPES)
_CODES = {name: code for code, (name, _) in DTYPES.items()}


@dataclass(frozen=True)
class Pending:
    """A tensor that is read when it is written: what lies in `parts`, one under the other, as `dtype`."""

    parts: tuple[Entry, ...]
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return (sum(part.shape[0] for part in self.parts), *first[1:]) if len(self.parts) > 1 else first

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        import torch

        pieces = {str(at): torch.empty(part.shape, dtype=self.dtype) for at, part in enumerate(self.parts)}
        for at, part in enumerate(self.parts):
            fill({str(at): part}, {str(at): pieces[str(at)]}, root=Path(part.file.anchor))
        return torch.cat(list(pieces.values())) if len(pieces) > 1 else pieces["0"]


def write(folder: Path, tensors: Writable, stem: str = "model", *, shard: int = SHARD) -> None:
    """Write `tensors` to `folder` as one file, or above `shard` bytes as several with an index.

    The same tensors give the same bytes. Each file appears whole or not at all; FileError where it exists.
    """
    parts = _shards(tensors, shard)
    for name, part in zip(_names(stem, len(parts)), parts, strict=True):
        with atomic(folder / name) as file:
            file.writelines(_chunks(part))
    if len(parts) > 1:
        names = _names(stem, len(parts))
        places = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        with atomic(folder / f"{stem}.safetensors.index.json") as file:
            file.write(json.dumps(index, indent=2).encode())


def digest(files: Iterable[Path]) -> str:
    """The digest of weights on disk: SHA-256 of the file, as `sha256sum` prints it.

    Of several shards: SHA-256 of their digests in the order of their names, one a line.
    """
    found = []
    for path in sorted(files):
        found.append(sha256(path))
    return _joined(found)


def live_digest(tensors: Writable, *, shard: int = SHARD) -> str:
    """The digest that `write` would give `tensors`."""
    found = []
    for part in _shards(tensors, shard):
        hashed = hashlib.sha256()
        for chunk in _chunks(part):
            hashed.update(chunk)
        found.append(hashed.hexdigest())
    return _joined(found)


def _shards(tensors: Writable, limit: int) -> list[dict[str, Tensor | Pending]]:
    """`tensors` in the order of the format, cut where a part would exceed `limit` bytes."""
    parts: list[dict[str, Tensor | Pending]] = [{}]
    size = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (_ORDER.index(_code(item[1])), item[0])):
        if parts[-1] and size + tensor.nbytes > limit:
            parts.append({})
            size = 0
        parts[-1][name] = tensor
        size += tensor.nbytes
    return parts


def _names(stem: str, count: int) -> list[str]:
    if count == 1:
        return [f"{stem}.safetensors"]
    return [f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)]


def _chunks(tensors: Writable) -> Iterator[bytes | memoryview]:
    """The bytes of one file."""
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        described[name] = {"dtype": _code(tensor), "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for tensor in tensors.values():
        live = tensor.read() if isinstance(tensor, Pending) else tensor
        yield as_bytes(live.detach().cpu().contiguous())


def _code(tensor: Tensor | Pending) -> str:
    return _CODES[str(tensor.dtype).removeprefix("torch.")]


def _joined(digests: Sequence[str]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
