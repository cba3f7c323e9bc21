"""Opening files that may come from strangers, in one place."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import IO, Any

from pictura.errors import CheckpointError, FileError, shown

__all__ = ["MAX_JSON", "opened", "parsed", "read_json", "unsound"]

MAX_JSON = 16 * 2**20  # bytes; the headers and indices of the largest public models need less than one MiB


def opened(path: Path, root: Path | None = None) -> IO[bytes]:
    """The open file, unbuffered. FileError unless it is a regular file.

    CheckpointError when its links end outside `root` (its own folder when None).
    """
    root = path.parent if root is None else root
    try:
        if not path.resolve(strict=True).is_relative_to(root.resolve()):
            raise CheckpointError(
                f"{str(path)!r} is a link that leaves its folder; copy the file there instead"
            )
        # Not blocking: opening a pipe would wait for ever for someone to write into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or "its links run in a circle"
        raise FileError(f"{str(path)!r} cannot be read ({reason}); give a file that exists") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(f"{str(path)!r} is no regular file; give one")
    return open(descriptor, "rb", buffering=0)


def read_json(path: Path, *, root: Path | None = None) -> dict[str, Any]:
    """A JSON object of at most 16 MiB in which no name comes twice; CheckpointError otherwise."""
    with opened(path, root) as file:
        return parsed(file.read(MAX_JSON + 1), path)


def parsed(text: bytes, path: Path) -> dict[str, Any]:
    """`text`, which came from `path`, as a JSON object in which no name comes twice; else CheckpointError."""
    if len(text) > MAX_JSON:
        raise unsound(path, f"it has more than {MAX_JSON} bytes of JSON")
    try:
        value = json.loads(text.decode(), object_pairs_hook=lambda pairs: _unique(pairs, path))
    except (ValueError, RecursionError) as error:
        raise unsound(
            path, "it is not JSON" if path.suffix == ".json" else "its header is not JSON"
        ) from error
    if not isinstance(value, dict):
        raise unsound(path, f"it holds {shown(value)} in place of a JSON object")
    return value


def unsound(path: Path, reason: str) -> CheckpointError:
    kind = path.suffix.removeprefix(".") or "model"
    return CheckpointError(f"{str(path)!r} is not a sound {kind} file: {reason}; get it again")


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise unsound(path, f"the name {shown(name)} comes twice")
        values[name] = value
    return values
