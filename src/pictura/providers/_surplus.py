"""Pictures beyond those that were asked for: paid for too, so kept where they can be found."""

from __future__ import annotations

from pathlib import Path

from pictura.errors import FileError
from pictura.picture import Picture, file_name
from pictura.picture.files import cache_folder

__all__ = ["Surplus"]


class Surplus:
    """What one call made beyond what was asked for, each written to the cache's folder "surplus" at once."""

    def __init__(self) -> None:
        self._places: dict[int, Path | None] = {}

    def keep(self, picture: Picture) -> bool:
        """Write a picture under its prompt and the digest of its pixels; whether it is a new one."""
        if picture.index in self._places:
            return False
        request = picture.request.amended(seed=None)  # whose seed it is, nobody knows
        unnamed = picture.amended(request=request)
        place = cache_folder() / "surplus" / file_name(unnamed)
        self._places[picture.index] = None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                unnamed.save(place)
        except (FileError, OSError):
            return True
        self._places[picture.index] = place
        return True

    @property
    def note(self) -> str:
        """What to say about them, "" where there are none."""
        if not self._places:
            return ""
        kept = [str(place) for place in self._places.values() if place is not None]
        lost = len(self._places) - len(kept)
        where = f"kept as {', '.join(kept)}" if kept else ""
        unwritten = f"{lost} could not be written to {cache_folder() / 'surplus'}" if lost else ""
        said = "; ".join(filter(None, (where, unwritten)))
        return f"the service made {len(self._places)} more than it was asked for: {said}"
