"""Pictures that came and that nobody takes: paid for too, so kept where they can be found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pictura.errors import FileError
from pictura.picture import Picture, file_name
from pictura.picture.files import cache_folder

__all__ = ["Surplus", "kept"]


class Surplus:
    """What one call made beyond what was asked for, each written to the cache's folder "surplus" at once."""

    def __init__(self) -> None:
        self._places: dict[int, Path | None] = {}

    def keep(self, picture: Picture) -> bool:
        """Write a picture under its prompt and the digest of its pixels; whether it is a new one."""
        if picture.index in self._places:
            return False
        request = picture.request.amended(seed=None)  # whose seed it is, nobody knows
        self._places[picture.index] = _written(picture.amended(request=request))
        return True

    @property
    def note(self) -> str:
        """What to say about them, "" where there are none."""
        if not self._places:
            return ""
        made = f"the service made {len(self._places)} more than it was asked for"
        return f"{made}: {_said(list(self._places.values()))}"


def kept(pictures: Sequence[Picture]) -> str:
    """Write pictures that came too late for who asked for them; what to say about that."""
    places = [_written(picture) for picture in pictures]
    return f"{len(places)} had come that were not taken any more: {_said(places)}"


def _written(picture: Picture) -> Path | None:
    place = cache_folder() / "surplus" / file_name(picture)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            picture.save(place)
    except (FileError, OSError):
        return None
    return place


def _said(places: Sequence[Path | None]) -> str:
    written = [str(place) for place in places if place is not None]
    lost = len(places) - len(written)
    where = f"kept as {', '.join(written)}" if written else ""
    unwritten = f"{lost} could not be written to {cache_folder() / 'surplus'}" if lost else ""
    return "; ".join(filter(None, (where, unwritten)))
