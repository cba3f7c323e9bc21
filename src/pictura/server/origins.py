"""Where a request comes from, for servers without keys: this machine, and no page of another site.

A browser sends what any page asks it to. Two headers that pages cannot change say who made it ask: Origin
(who sends) and Host (whom it believes to send to; a name of the attacker's that resolves to 127.0.0.1 stays
the attacker's name).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from pictura.server.errors import Forbidden

__all__ = ["check", "is_loopback"]

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::([0-9]{1,5}))?")
SAFE = ("GET", "HEAD", "OPTIONS")


def check(
    method: str,
    *,
    host: str | None,
    origin: str | None,
    site: str | None,
    scheme: str,
    allowed: Iterable[str],
) -> None:
    """Forbidden unless it was sent to a name of this machine and, where it changes something, by its page.

    host, origin, site: the headers Host, Origin and Sec-Fetch-Site. allowed: origins that may ask too.
    """
    if host is None or not is_loopback(host):
        raise Forbidden("this server answers on loopback names only; start it with an API key for others")
    if method in SAFE or origin in set(allowed):
        return
    if origin is None:
        if site not in (None, "same-origin", "none"):
            raise Forbidden("requests from other pages are refused")
    elif origin.lower() != f"{scheme}://{host.lower()}":
        raise Forbidden("requests from other pages are refused")


def is_loopback(host: str) -> bool:
    """Whether a Host header, with or without a port, names this machine and nothing else."""
    match = _HOST.fullmatch(host)
    if match is None or (match[3] is not None and int(match[3]) > 65535):
        return False
    if match[2] is not None and match[2].lower().removesuffix(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(match[1] or match[2]).is_loopback
    except ValueError:
        return False
