"""Weights of Keras models: `model.weights.h5`, or its shards, read with suspicion and never written.

HDF5 is only asked where each tensor lies. What it says is checked against the file before a byte of a tensor
is read, and the bytes are then read as those of any other file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pictura.errors import CheckpointError, FileError, PicturaError, shown
from pictura.formats.reading import opened, read_json, unsound
from pictura.formats.rules import permuted, viewed
from pictura.formats.safetensors import DTYPES, Entry

__all__ = ["weights"]

_DTYPES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "<i4": "I32"}
_MOST = 100_000  # objects in a file; the largest public presets have a tenth of that
_LEAVES = {"0": "weight", "1": "bias"}  # of "vars", in the order in which layers make them


def weights(folder: Path, *, root: Path | None = None) -> dict[str, Entry]:
    """Every tensor of a preset, as torch would have it, by its layer: "mm_di_t.dense.weight".

    FileError where there are none, CheckpointError where they are not sound.
    """
    found: dict[str, Entry] = {}
    for path in _files(folder, root):
        for name, entry in _tensors(path, root):
            if name in found:
                raise CheckpointError(f"tensor {shown(name)} comes twice in {str(folder)!r}; get it again")
            found[name] = entry
    return found


def _files(folder: Path, root: Path | None) -> list[Path]:
    single, index = folder / "model.weights.h5", folder / "model.weights.json"
    if single.exists():
        return [single]
    if not index.exists():
        raise FileError(f"{str(folder)!r} has no {single.name}; choose a folder that holds a model")
    places = read_json(index, root=root).get("weight_map")
    lists: list[Any] = list(places.values()) if isinstance(places, dict) else [None]
    if not all(isinstance(names, list) and all(isinstance(n, str) for n in names) for names in lists):
        raise CheckpointError(f"{str(index)!r} lists no weights; get the model again")
    shards = sorted({name for names in lists for name in names})
    for name in shards:
        if Path(name).name != name or not name.endswith(".h5"):
            raise CheckpointError(f"{str(index)!r} points out of its folder to {shown(name)}; do not use it")
    return [folder / name for name in shards]


def _tensors(path: Path, root: Path | None) -> list[tuple[str, Entry]]:
    try:
        import h5py
    except ImportError:
        raise FileError(
            f"{str(path)!r} needs h5py to be read; install it with: pip install 'pictura[keras]'"
        ) from None
    with opened(path, root) as file:
        file.seek(0, 2)
        size = file.tell()
    try:
        with h5py.File(path, "r") as held:
            found = [(_named(place), _entry(place, data, path, size)) for place, data in _walk(held, path)]
    except PicturaError:
        raise
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise unsound(path, f"HDF5 cannot read it ({reason})") from error
    end = 0
    for name, entry in sorted(found, key=lambda item: item[1].start):
        if entry.start < end:
            raise unsound(path, f"tensor {shown(name)} overlaps another")
        end = entry.end
    return found


def _walk(held: Any, path: Path) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(place, data set) for each one that is not empty; links out of the tree are not followed."""
    import h5py

    waiting: list[tuple[tuple[str, ...], Any]] = [((), held)]
    met = 0
    while waiting:
        place, group = waiting.pop()
        for name in group:
            met += 1
            if met > _MOST or len(place) > 32:
                raise unsound(path, f"it holds more than {_MOST} objects, or too deep ones")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise unsound(path, f"{shown('/'.join((*place, name)))} is a link to elsewhere")
            child = group[name]
            if isinstance(child, h5py.Group):
                waiting.append(((*place, name), child))
            elif child.size:
                yield (*place, name), child


def _named(place: tuple[str, ...]) -> str:
    """ "layers/dense/vars/0" -> "dense.weight"."""
    *layers, last = (part for part in place if part not in ("layers", "vars"))
    return ".".join((*layers, _LEAVES.get(last, last)))


def _entry(place: tuple[str, ...], data: Any, path: Path, size: int) -> Entry:
    name = "/".join(place)
    kind = "BF16" if data.dtype.str == "|V2" and data.attrs.get("dtype") == "bfloat16" else None
    dtype = kind or _DTYPES.get(data.dtype.str)
    if dtype is None:
        raise unsound(path, f"tensor {shown(name)} has the unknown dtype {shown(data.dtype.str)}")
    start = data.id.get_offset()
    if data.chunks is not None or data.compression is not None or data.external or start is None:
        raise unsound(path, f"tensor {shown(name)} is not stored in one piece")
    length = math.prod(data.shape) * DTYPES[dtype][1]
    if not 0 < start <= size - length:
        raise unsound(path, f"tensor {shown(name)} of {dtype} {list(data.shape)} ends behind the file")
    return _torch(Entry(dtype, tuple(data.shape), start, start + length, path), place[-3:])


def _torch(entry: Entry, place: tuple[str, ...]) -> Entry:
    """Keras has inputs before outputs in its kernels, and the axes of heads apart."""
    layer, leaf = place[0], place[-1]
    shape = entry.shape
    if leaf != "0":
        return viewed(entry, (math.prod(shape),)) if len(shape) == 2 else entry
    if len(shape) == 4:
        return permuted(entry, (3, 2, 0, 1))
    if len(shape) == 3:
        given = shape[0] * shape[1] if layer == "output_dense" else shape[0]
        return permuted(viewed(entry, (given, math.prod(shape) // given)), (1, 0))
    return permuted(entry, (1, 0)) if len(shape) == 2 and not layer.endswith("embedding") else entry
