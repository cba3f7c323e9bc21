"""Writing files so that they appear whole or not at all, and never over another one by accident."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pictura.errors import FileError

__all__ = ["atomic", "cache_folder", "hold", "sha256", "sync"]


def cache_folder() -> Path:
    """Where Pictura keeps what it can do without: `PICTURA_CACHE`, or the platform's place for caches."""
    if chosen := os.environ.get("PICTURA_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("pictura", appauthor=False)


@contextmanager
def atomic(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends well, and leaves no trace when it does not.

    FileError where `path` exists (unless `overwrite`) or its folder cannot be written to.
    """
    target = Path(path)
    if not overwrite and os.path.lexists(target):
        raise _in_the_way(target)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".part", dir=target.parent)
    except (OSError, ValueError) as error:
        raise _unwritable(target, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        _publish(Path(name), target, overwrite)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


def hold(file: BinaryIO | int) -> None:
    """Keep `file`, an open file or its number, locked until it is closed or this process ends.

    However that happens. OSError if another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(file if isinstance(file, int) else file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync(folder: str | os.PathLike[str]) -> None:
    """Let the names of what lies in a folder outlive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: str | os.PathLike[str]) -> str:
    """The digest of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _publish(part: Path, target: Path, overwrite: bool) -> None:
    os.chmod(part, 0o666 & ~_umask())  # mkstemp's files are for the owner alone
    try:
        if overwrite:
            os.replace(part, target)
            return
        try:
            os.link(part, target)  # unlike a rename, refuses when another process was faster
        except FileExistsError:
            raise _in_the_way(target) from None
        except OSError:  # a file system without hard links
            if os.path.lexists(target):
                raise _in_the_way(target) from None
            os.replace(part, target)
    except OSError as error:
        raise _unwritable(target, error) from error


def _umask() -> int:
    with suppress(OSError, ValueError):  # reading it any other way changes it for a moment, in all threads
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def _in_the_way(target: Path) -> FileError:
    return FileError(f"{str(target)!r} exists already; choose another name or allow overwriting")


def _unwritable(target: Path, error: Exception) -> FileError:
    if not target.parent.is_dir():
        return FileError(f"{str(target)!r} cannot be written: there is no folder {str(target.parent)!r}")
    reason = error.strerror if isinstance(error, OSError) else error
    return FileError(f"{str(target)!r} cannot be written: {reason}")
