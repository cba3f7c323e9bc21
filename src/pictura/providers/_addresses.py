"""Where addresses lead, and whether a service may send us there."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlsplit

from pictura.errors import ProviderError

__all__ = ["Target", "allowed", "is_private_name", "is_public", "server_of", "target_of"]


class Target(NamedTuple):
    """Where an address leads. `path` has the query, `host` is as it goes into the Host header."""

    secure: bool
    name: str
    port: int
    path: str
    host: str


async def allowed(name: str, port: int, place: str) -> list[str]:
    """The addresses of a host, if all of them are public ones; ProviderError if not.

    A service that is not on this network has no business to make this machine ask hosts that are.
    """
    found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(map(is_public, addresses)):
        raise ProviderError(
            f"{place} lies on a private network and the service that named it does not; it is not fetched",
            again=False,
        )
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address is one of the open internet, also where IPv6 wraps an IPv4 one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        wrapped = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if wrapped is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            wrapped = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if wrapped is not None:
            return wrapped.is_global and not wrapped.is_multicast
    return ip.is_global and not ip.is_multicast


@lru_cache(1000)
def target_of(url: str, place: str) -> Target:
    try:
        parts = urlsplit(url)
        name = parts.hostname or ""
        name = name if ":" in name else name.encode("idna").decode()
        secure, port = parts.scheme == "https", parts.port
    except (ValueError, UnicodeError):
        parts, name = None, ""
    if parts is None or parts.scheme not in ("http", "https") or not name:
        raise ProviderError(f"no answer from {place!r}, which is no http or https address", again=False)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(letter <= " " for letter in path):
        raise ProviderError(f"no answer from {place!r}: percent-encode what is no plain letter", again=False)
    bracketed = f"[{name}]" if ":" in name else name
    host = bracketed if port is None else f"{bracketed}:{port}"
    return Target(secure, name, port or (443 if secure else 80), path, host)


@lru_cache(1000)
def server_of(target: Target) -> Target:
    """What all paths of a server have in common."""
    return target._replace(path="")


def is_private_name(name: str) -> bool:
    """Whether a host's name shows that it is on this machine or network; nothing is looked up."""
    try:
        return not is_public(name)
    except ValueError:
        plain = name.lower().rstrip(".")
        return "." not in plain or plain.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
