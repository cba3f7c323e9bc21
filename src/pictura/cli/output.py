"""Where pictures are put: names that are free, files that are not in the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pictura.errors import FileError, did_you_mean, shown

if TYPE_CHECKING:
    from pictura.picture import Picture


def saver(out: Path | None, *, overwrite: bool = False, several: bool = True) -> Callable[[Picture], Path]:
    """What stores a picture and says where: in the file `out`, or under a free name in the folder `out`.

    Raises FileError, before any work, where that cannot succeed.
    """
    if out is None or out.is_dir() or not out.suffix:
        folder = Path() if out is None else out
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise FileError(f"folder {shown(str(folder))} cannot be made: {reason}") from error
        return lambda picture: save_free(picture, folder)
    if several:
        raise FileError(f"{shown(str(out))} is one file but there may be several pictures; give a folder")
    path = checked_file(out, overwrite)
    return lambda picture: picture.save(path, overwrite=overwrite)


def checked_file(out: Path, overwrite: bool) -> Path:
    """`out`, if a picture can be stored there; FileError before any work otherwise."""
    from pictura.picture.metadata import FORMATS

    if out.suffix.lower() not in FORMATS:
        known = did_you_mean(out.suffix, FORMATS)
        raise FileError(f"{shown(str(out))} is no picture file that can be written; {known}")
    if out.exists() and not overwrite:
        raise FileError(f"{shown(str(out))} exists; choose another name or give --overwrite")
    if not out.parent.is_dir():
        raise FileError(f"folder {shown(str(out.parent))} does not exist; make it first")
    return out


def save_free(picture: Picture, folder: Path) -> Path:
    """Store `picture` in `folder` under its prompt and seed, or the first free name like that."""
    from pictura.picture import file_name

    path = folder / file_name(picture)
    while True:
        free = free_path(path)
        try:
            return picture.save(free)
        except FileError:
            if not free.exists():  # else another process took the name in between
                raise


def free_path(path: Path) -> Path:
    """`path`, or the first of name-2, name-3, ... that does not exist."""
    names = itertools.chain([path.name], (f"{path.stem}-{n}{path.suffix}" for n in itertools.count(2)))
    return next(free for name in names if not (free := path.with_name(name)).exists())
