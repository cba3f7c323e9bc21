"""The page: files that a browser runs as they are, and what a server says with them.

They are plain ES modules and style sheets in `static/`, written by hand: nothing is built, and nothing is
fetched from another host. A server gives `INDEX` at / and `FOLDER` at /static/, with `HEADERS`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

__all__ = ["FOLDER", "HEADERS", "INDEX"]

FOLDER = Path(str(files(__name__) / "static"))
"""What lies at /static/."""

INDEX = FOLDER / "index.html"
"""What is at /."""

POLICY = {
    "default-src": "'self'",
    "img-src": "'self' blob: data:",  # previews come inside events
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",  # no text becomes HTML, by the browser's own check
}

HEADERS = {
    "content-security-policy": "; ".join(f"{name} {value}" for name, value in POLICY.items()),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # asked for each time, sent again when it has changed
}
"""What goes with each of these files."""
