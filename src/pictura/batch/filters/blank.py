"""Pictures of a single colour: what services send for a refused prompt, and models after an overflow."""

from __future__ import annotations

from collections.abc import Sequence

from pictura.picture import Picture


def refuse(pictures: Sequence[Picture]) -> list[str | None]:
    """The pictures in which every pixel is the same."""
    return [_reason(picture) for picture in pictures]


def _reason(picture: Picture) -> str | None:
    colours = picture.image.convert("RGB").getcolors(maxcolors=1)
    return None if colours is None else "the picture is blank"
