"""Weights on disk: https://huggingface.co/docs/safetensors, read with suspicion.

A file is eight bytes (the header's length, little endian), a JSON header {name: {dtype, shape, data_offsets}}
and the tensors' bytes. Everything that the header says is checked before a byte of a tensor is read, so a
wrong or hostile file costs neither time nor memory. Bytes are then read straight into the tensors they belong
to: a load needs the memory of the model and no more, and a file that shrinks meanwhile is an error, no crash.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from pictura.errors import CheckpointError, FileError, shown
from pictura.formats.reading import MAX_JSON, opened, parsed, read_json, unsound
from pictura.formats.steps import Steps, taken

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["DTYPES", "Entry", "as_bytes", "check", "fill", "header", "names", "torch_dtype", "weights"]

# dtype as the format spells it -> torch's name, bytes.
DTYPES = {
    "U64": ("uint64", 8),
    "I64": ("int64", 8),
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "U32": ("uint32", 4),
    "I32": ("int32", 4),
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "U16": ("uint16", 2),
    "I16": ("int16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class Entry(NamedTuple):
    """Where one tensor lies: `file[start:end]`.

    Where a network wants it in another form than the file has it, `steps` lead from the numbers as they lie
    there to a tensor of `shape`; see `pictura.formats.steps`.
    """

    dtype: str  # as the format spells it: "F32", "BF16", ...
    shape: tuple[int, ...]
    start: int
    end: int
    file: Path
    steps: Steps = ()


def names(stem: str, variant: str | None = None) -> tuple[str, str]:
    """What weights are called: the single file, and the index of several."""
    if variant is None:
        return f"{stem}.safetensors", f"{stem}.safetensors.index.json"
    return f"{stem}.{variant}.safetensors", f"{stem}.safetensors.index.{variant}.json"


def weights(
    folder: Path, stem: str = "model", *, root: Path | None = None, variant: str | None = None
) -> dict[str, Entry]:
    """Every tensor of `folder`, from `stem`.safetensors or from the shards that its index lists.

    variant: as in `stem`.fp16.safetensors. No link may leave `root` (the folder itself when None). FileError
    when there are no weights, CheckpointError when they are not sound.
    """
    root = folder if root is None else root
    single, index = (folder / name for name in names(stem, variant))
    if single.exists() or single.is_symlink():
        return header(single, root=root)
    if not index.exists():
        raise FileError(f"{str(folder)!r} has no {single.name}; choose a folder that holds a model")
    places = read_json(index, root=root).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise CheckpointError(f"{str(index)!r} lists no weights; download the model again")
    found: dict[str, Entry] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or name in ("", ".", ".."):
            raise CheckpointError(f"{str(index)!r} points out of its folder to {shown(name)}; do not use it")
        for tensor, entry in header(folder / name, root=root).items():
            if places.get(tensor) != name:
                raise CheckpointError(
                    f"tensor {shown(tensor)} lies in {name!r}, where {index.name!r} does not list it; "
                    "download the model again"
                )
            found[tensor] = entry
    for tensor, name in places.items():
        if tensor not in found:
            raise CheckpointError(
                f"tensor {shown(tensor)} is missing from {name!r}; download the model again"
            )
    return found


def header(path: Path, *, root: Path | None = None) -> dict[str, Entry]:
    """The tensors of one file, checked against each other and against the file's length; reads no tensor."""
    with opened(path, root) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(8)
        if first.startswith(_PICKLES):
            raise CheckpointError(
                f"{str(path)!r} is a pickle, which can run any code when opened; convert it to safetensors"
            )
        length = int.from_bytes(first, "little")
        if len(first) < 8 or length > size - 8:
            raise unsound(path, f"it has {size} bytes, too few for its header")
        if length > MAX_JSON:
            raise unsound(path, f"its header claims {length} bytes, more than {MAX_JSON}")
        raw = parsed(file.read(length), path)
    raw.pop("__metadata__", None)
    entries = {name: _entry(name, value, path, 8 + length) for name, value in raw.items()}
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != end:
            raise unsound(path, f"tensor {shown(name)} overlaps another or leaves a gap")
        end = entry.end
    if end != size:
        raise unsound(path, f"its tensors end at byte {end}, the file at {size}")
    return entries


def check(entries: Mapping[str, Entry], wanted: Mapping[str, Tensor]) -> None:
    """CheckpointError naming the first tensor (by name) that does not belong into the one in `wanted`.

    It is missing, unknown or of another shape, or numbers with a fraction belong where it has none, or the
    other way round. The tensors in `wanted` may be on the meta device.
    """
    for name in sorted({*entries, *wanted}):
        if name not in entries:
            raise CheckpointError(
                f"tensor {shown(name)} is missing from the weights; the configuration is another model's"
            )
        file = str(entries[name].file)
        if name not in wanted:
            raise CheckpointError(f"tensor {shown(name)} in {file!r} belongs to no part of this network")
        has, needs = list(entries[name].shape), list(wanted[name].shape)
        if has != needs:
            raise CheckpointError(f"tensor {shown(name)} in {file!r} has shape {has}, but needs {needs}")
        stored, into = torch_dtype(entries[name].dtype), wanted[name].dtype
        if stored.is_floating_point != into.is_floating_point:
            raise CheckpointError(f"tensor {shown(name)} in {file!r} has dtype {stored}, but needs {into}")


def fill(entries: Mapping[str, Entry], tensors: Mapping[str, Tensor], *, root: Path | None = None) -> None:
    """Read every named tensor's bytes into it, converting to the dtype and device it already has.

    Shapes have been compared by `check`.
    """
    import torch

    files: dict[Path, list[str]] = {}
    for name in sorted(tensors, key=lambda name: entries[name].start):
        files.setdefault(entries[name].file, []).append(name)
    for path, names in files.items():
        with torch.no_grad(), opened(path, root) as file:
            for name in names:
                entry, target = entries[name], tensors[name]
                stored = torch_dtype(entry.dtype)
                straight = target.dtype == stored and target.device.type == "cpu" and target.is_contiguous()
                straight = straight and not entry.steps
                into = (
                    target
                    if straight
                    else torch.empty((entry.end - entry.start) // stored.itemsize, dtype=stored)
                )
                file.seek(entry.start)
                if not _read_into(file, as_bytes(into)):
                    raise unsound(path, f"it ends within tensor {shown(name)}")
                if not straight:
                    target.copy_(taken(into, entry.steps).reshape(entry.shape))


def torch_dtype(code: str) -> torch.dtype:
    """torch.float32 for "F32"."""
    import torch

    dtype: torch.dtype = getattr(torch, DTYPES[code][0])
    return dtype


def _entry(name: str, value: object, path: Path, data: int) -> Entry:
    wrong = unsound(path, f"its description of tensor {shown(name)} makes no sense")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise unsound(path, f"tensor {shown(name)} has the unknown dtype {shown(dtype)}")
    if not (_whole(shape) and _whole(offsets) and len(offsets) == 2 and len(shape) <= 64):
        raise wrong
    start, end = offsets
    if end - start != math.prod(shape) * DTYPES[dtype][1]:
        raise unsound(path, f"tensor {shown(name)} of {dtype} {shape} does not fill bytes {start}..{end}")
    return Entry(dtype, tuple(shape), data + start, data + end, path)


def _whole(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    import torch

    return memoryview(tensor.detach().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def _read_into(file: IO[bytes], target: memoryview) -> bool:
    done = 0
    while done < len(target):
        got = file.readinto(target[done : done + 2**28])  # type: ignore[attr-defined]  # raw files have it
        if not got:
            return False
        done += got
    return True
