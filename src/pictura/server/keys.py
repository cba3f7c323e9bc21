"""API keys: who holds one, what it allows, and how often.

A file of keys has one a line, `#` begins a comment:

    sk-anything-long                            a key as it is; everything is allowed
    anna  sha256:2c26b4...                      the hash of one, as `pictura serve keys add` writes it
    page  sha256:fcde2b...  read,generate  requests=60  pictures=20

Only hashes are held in memory. They need no salt and no slow function, because a key that is made here has
256 random bits; whoever writes a key of their own is told when it is short.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pictura.errors import FileError, ParameterError, did_you_mean, shown

__all__ = ["SCOPES", "SHORT", "Key", "added", "find", "key_of", "new_secret", "read_keys", "removed"]

SCOPES = ("read", "generate", "rate", "admin")
SHORT = 16  # characters below which a key can be guessed
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Key:
    """digest: SHA-256 of the key. requests, pictures: the most in a minute, None for any number.

    name: what its jobs and log lines are known by. short: whether it is one that can be guessed.
    """

    name: str
    digest: bytes
    scopes: frozenset[str] = frozenset(SCOPES)
    requests: int | None = None
    pictures: int | None = None
    short: bool = False


def new_secret() -> str:
    """A key that nobody guesses."""
    return "pk-" + secrets.token_urlsafe(32)


def key_of(secret: str, *, name: str | None = None) -> Key:
    """The key that `secret` is; it allows everything. Without a name it is called by its hash."""
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    return Key(name=name or f"key-{digest.hex()[:8]}", digest=digest, short=len(secret) < SHORT)


def find(keys: Iterable[Key], secret: str) -> Key | None:
    """The one that `secret` is. Takes as long whichever it is, and when it is none."""
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    found = None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def read_keys(file: Path) -> tuple[Key, ...]:
    """The keys of a file; FileError where there is none or a line is not understood."""
    keys = tuple(key for _, key in _lines(file) if key is not None)
    if not keys:
        raise FileError(f"the file of API keys {shown(str(file))} has none; write one a line")
    names = [key.name for key in keys]
    for name in names:
        if names.count(name) > 1:
            raise FileError(f"the file of API keys has {shown(name)} twice; give each key its own name")
    return keys


def added(
    file: Path, name: str, scopes: Iterable[str], *, requests: int | None = None, pictures: int | None = None
) -> str:
    """Make a key, add its hash to `file`, and return it: it is nowhere else. FileError, ParameterError."""
    if not _NAME.fullmatch(name):
        raise ParameterError(
            f"name is {shown(name)}; give 1 to 64 letters, digits, dots, dashes", parameter="name"
        )
    kept = sorted(_scopes(scopes), key=SCOPES.index)
    text = "".join(f"{line}\n" for line, _ in _lines(file)) if file.exists() else ""
    if text and any(key is not None and key.name == name for _, key in _lines(file)):
        raise FileError(f"the file of API keys has {shown(name)} already; remove it first")
    secret = new_secret()
    fields = [name, f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}", ",".join(kept)]
    fields += [f"requests={requests}"] * (requests is not None)
    fields += [f"pictures={pictures}"] * (pictures is not None)
    _write(file, text + "  ".join(fields) + "\n")
    return secret


def removed(file: Path, name: str) -> None:
    """Take a key out of `file`; FileError where it has none of that name."""
    lines = _lines(file)
    kept = [line for line, key in lines if key is None or key.name != name]
    if len(kept) == len(lines):
        known = [key.name for _, key in lines if key is not None]
        raise FileError(f"the file of API keys has no {shown(name)}; {did_you_mean(name, known)}")
    _write(file, "".join(f"{line}\n" for line in kept))


def _write(file: Path, text: str) -> None:
    from pictura.picture.files import atomic

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic(file, overwrite=True) as target:
            target.write(text.encode())
        file.chmod(0o600)
    except OSError as error:
        raise FileError(f"the file of API keys {shown(str(file))} cannot be written: {error}") from error


def _lines(file: Path) -> list[tuple[str, Key | None]]:
    """Each line with the key that it has."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"the file of API keys {shown(str(file))} cannot be read: {error}") from error
    return [(line, _key(line, at)) for at, line in enumerate(lines, 1)]


def _key(line: str, at: int) -> Key | None:
    """What a line has. Its words never stand in an error: they may be a key."""
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    if len(fields) == 1:
        return key_of(fields[0])
    name, hashed, *more = fields
    match = _HASH.fullmatch(hashed)
    if not _NAME.fullmatch(name) or match is None or len(more) > 3:
        raise FileError(
            f"line {at} of the file of API keys is not understood; write a key alone, "
            "or NAME sha256:HASH SCOPES requests=N pictures=N"
        )
    scopes = [field for field in more if "=" not in field]
    limits = dict(field.split("=", 1) for field in more if "=" in field)
    if len(scopes) > 1 or set(limits) - {"requests", "pictures"} or not all(map(_number, limits.values())):
        raise FileError(f"line {at} of the file of API keys has limits that are not understood")
    return Key(
        name=name,
        digest=bytes.fromhex(match[1]),
        scopes=_scopes(scopes[0].split(",")) if scopes else frozenset(SCOPES),
        requests=int(limits["requests"]) if "requests" in limits else None,
        pictures=int(limits["pictures"]) if "pictures" in limits else None,
    )


def _number(text: str) -> bool:
    return re.fullmatch(r"[1-9][0-9]{0,8}", text) is not None


def _scopes(names: Iterable[str]) -> frozenset[str]:
    found = frozenset(name.strip() for name in names if name.strip())
    for name in sorted(found - set(SCOPES)) or ([""] if not found else []):
        raise ParameterError(
            f"scope {shown(name)} is unknown; {did_you_mean(name, SCOPES)}", parameter="scopes"
        )
    return found
