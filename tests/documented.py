"""What a page of the documentation shows, so that tests use it as it stands there and not a copy."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def block(page: str, containing: str) -> str:
    """The one code block of docs/`page` that has `containing` in it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (found,) = [body for body in re.findall(r"^```\w+\n(.*?)^```$", text, re.M | re.S) if containing in body]
    return found


def put(text: str, places: dict[str, str]) -> str:
    """`text` with the places of the example (its keys) replaced by those of a test; each must be there."""
    for shown in places:
        assert shown in text, f"{shown!r} is no more in\n{text}"
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], text)
