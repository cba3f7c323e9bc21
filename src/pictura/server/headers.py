"""What every answer tells the browser that reads it."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["secured"]

Headers = list[tuple[bytes, bytes]]

# For answers that are no page (the page says its own): nothing in them is ever run or fetched.
_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; frame-ancestors 'none'"

_ALWAYS: Headers = [
    (b"content-security-policy", _POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
]


def secured(path: str, given: Iterable[tuple[bytes, bytes]], id: str) -> Headers:
    """The headers of an answer with those that keep browsers safe; what a route said of itself stays."""
    headers = list(given)
    names = {name.lower() for name, _ in headers}
    shared = b"cross-origin" if path.startswith("/images/") else b"same-origin"
    more = [
        *_ALWAYS,
        (b"cross-origin-resource-policy", shared),
        (b"cache-control", b"no-store"),
        (b"x-request-id", id.encode()),
    ]
    return headers + [(name, value) for name, value in more if name not in names]
