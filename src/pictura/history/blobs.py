"""Files by content: a file's name is its SHA-256, so storing one twice is storing it once."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from pictura.errors import FileError
from pictura.picture.files import sync

__all__ = ["Blobs", "read"]

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the quota is used up", errno.EFBIG: "too large"}


class Blobs:
    """A folder of files, in 256 folders by the first digits of their digests.

    `put` returns when the file would survive a loss of power: temporary file, fsync, rename, fsync of the
    folder. What a killed process left is a temporary file, never half a blob.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def put(self, data: bytes, suffix: str) -> str:
        """Store `data`; its digest, 64 hexadecimal digits. FileError where it cannot be kept."""
        digest = hashlib.sha256(data).hexdigest()
        target = self.path(digest, suffix)
        with suppress(FileError, FileNotFoundError):  # there already; what was damaged meanwhile is mended
            read(target, digest)
            _touch(target)
            return digest
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                sync(target.parent.parent)
            handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, target)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(part)
            sync(target.parent)
        except OSError as error:
            reason = _FULL.get(error.errno or 0, error.strerror or str(error))
            raise FileError(f"a picture cannot be kept in {str(self.folder)!r}: {reason}") from error
        return digest

    def get(self, digest: str, suffix: str) -> bytes:
        """The stored file; FileError where it is gone or is not what was stored."""
        return read(self.path(digest, suffix), digest)

    def path(self, digest: str, suffix: str) -> Path:
        """Where the file of this digest lies, if it was stored."""
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not re.fullmatch(r"\.[a-z]{3,4}", suffix):
            raise FileError(f"{digest[:70]!r} with {suffix[:8]!r} is no name of a stored file")
        return self.folder / digest[:2] / f"{digest}{suffix}"


def read(path: Path, digest: str) -> bytes:
    """The content of a stored file; FileError where it is gone or has another digest."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError(f"the file {path.name} is missing from {str(path.parent.parent)!r}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise FileError(f"the file {path.name} in {str(path.parent.parent)!r} is damaged")
    return data


def _touch(path: Path) -> None:
    """Say that somebody is about to need a file, so that it is not cleaned away as nobody's."""
    try:
        os.utime(path)
    except PermissionError:  # of another user, whose it then is
        return
