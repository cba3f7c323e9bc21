"""What the history gives back: a picture's entry, a page of them. Values, without the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pictura.history.blobs import read
from pictura.picture import Picture
from pictura.request import Request

__all__ = ["Entry", "Page", "Pages"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture in the history. made_at: microseconds since 1970, UTC; path: its file."""

    id: str
    made_at: int
    sha256: str
    size: tuple[int, int]
    request: Request
    model_digest: str | None
    details: Mapping[str, Any]
    job: str | None
    index: int | None
    stars: int | None
    note: str | None
    path: Path

    def picture(self) -> Picture:
        """The picture itself, from its file; FileError where that is gone or damaged."""
        return Picture.open(self.path)

    def content(self) -> bytes:
        """Its file; FileError where that is gone or is not what was stored."""
        return read(self.path, self.sha256)


@dataclass(frozen=True, kw_only=True)
class Page:
    """Entries, newest first, and the cursor of the next page, None on the last."""

    entries: tuple[Entry, ...]
    next: str | None


@dataclass(frozen=True, kw_only=True)
class Pages:
    """How many pictures a search finds, and the cursor that each page of them begins at."""

    total: int
    cursors: tuple[str, ...]
