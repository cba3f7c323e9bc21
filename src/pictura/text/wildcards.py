"""Wildcards: folders of text files whose lines may stand in for `__name__` in a prompt."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pictura.errors import ParameterError, did_you_mean, shown

__all__ = ["Wildcards"]

MAX_BYTES = 16 * 2**20


class Wildcards:
    """`folder/name.txt` is `__name__`, `folder/more/name.txt` is `__more/name__`: one choice a line; blank
    lines and those that begin with # say nothing. None is the folder that PICTURA_WILDCARDS names; without
    one every name is an error that asks for it.

    ParameterError where the folder is none.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        folder = folder or os.environ.get("PICTURA_WILDCARDS") or None
        self.folder = None if folder is None else Path(folder).expanduser()
        if self.folder is not None and not self.folder.is_dir():
            raise ParameterError(
                f"wildcards is {shown(str(folder))}, which is no folder; give one of text files",
                parameter="wildcards",
            )

    def __call__(self, name: str) -> Sequence[str]:
        """The lines of a wildcard; ParameterError where it has none."""
        if self.folder is None:
            raise ParameterError(
                f"the prompt has the wildcard __{name}__ and there is no folder to find it in; "
                "give wildcards (--wildcards DIR), or prompt_syntax 'plain'",
                parameter="wildcards",
            )
        path = self.folder.joinpath(*name.split("/")).with_suffix(".txt")  # a name has no dots
        try:
            changed = path.stat().st_mtime_ns
        except (OSError, ValueError):
            raise ParameterError(
                f"wildcard __{name}__ has no file {str(path)!r}; {did_you_mean(name, self.names())}",
                parameter="wildcards",
            ) from None
        lines = _lines(str(path), changed)
        if not lines:
            raise ParameterError(f"wildcard file {str(path)!r} is empty; write lines", parameter="wildcards")
        return lines

    def names(self) -> list[str]:
        """Of all wildcards, sorted."""
        folder = self.folder
        if folder is None:
            return []
        return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.txt"))

    def digest(self) -> str:
        """SHA-256 of all names and lines, 64 hexadecimal digits: equal folders give equal choices."""
        whole = hashlib.sha256()
        for name in self.names():
            path = Path(self.folder or "", f"{name}.txt")
            lines = _lines(str(path), path.stat().st_mtime_ns)
            whole.update(json.dumps([name, *lines]).encode() + b"\n")
        return whole.hexdigest()


@lru_cache(maxsize=256)
def _lines(path: str, changed: int) -> tuple[str, ...]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ParameterError(
            f"wildcard file {path!r} cannot be read as UTF-8 text ({error}); write it anew",
            parameter="wildcards",
        ) from error
    if len(data) > MAX_BYTES:
        raise ParameterError(
            f"wildcard file {path!r} has more than {MAX_BYTES >> 20} MB; make it shorter",
            parameter="wildcards",
        )
    lines = (line.strip().replace("\0", "") for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
