"""The folder of a batch: who may use it, and how a file gets into it for good.

    OUT/              the outputs, as their format has them
    OUT/.pictura/     plan.json, the ledger, a lock, pictures that wait for their place (spool), parts (tmp)

A file is written under `tmp`, fsynced, renamed to its place, and the folder of that place is fsynced; only
then does the ledger learn of it.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pictura.batch.plan import Plan
from pictura.errors import FileError, shown
from pictura.picture.files import hold, sync

__all__ = ["Store"]

HIDDEN = ".pictura"
WRITERS = 8  # threads that write files at once
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Store:
    """Folder `out`, ours while it is open. FileError where another run has it."""

    def __init__(self, out: str | os.PathLike[str]) -> None:
        self.out = Path(out)
        self.hidden = self.out / HIDDEN
        self.spool = self.hidden / "spool"
        self._tmp = self.hidden / "tmp"
        self._dirty: set[Path] = set()
        self._made: set[Path] = set()
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="pictura-write")
        self.going_on = False  # whether an earlier run has been here
        new = not self.hidden.is_dir()
        if self.out.exists() and not self.out.is_dir():
            raise FileError(f"{shown(str(out))} is a file; give a folder")
        if new and self.out.is_dir() and any(path.name != HIDDEN for path in self.out.iterdir()):
            raise FileError(f"{shown(str(out))} holds other files; choose a new or an empty folder")
        with told(self.out):
            self.hidden.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.hidden / "lock", "wb")  # noqa: SIM115 (held until close)
        try:
            hold(self._lock)
        except OSError:
            self._lock.close()
            raise FileError(
                f"another run is writing to {shown(str(out))}; wait for it, or choose another folder"
            ) from None

    def before(self) -> Plan | None:
        """The plan that this folder was begun with; None where it is new."""
        path = self.hidden / "plan.json"
        return Plan.from_json(path.read_text("utf-8")) if path.exists() else None

    def claim(self, plan: Plan) -> None:
        """Make the folder that of `plan`. FileError, telling the differences, where it is another's."""
        before = self.before()
        self.going_on = before is not None
        if before is None:
            self.put(self.hidden / "plan.json", plan.to_json().encode())
            self.sync()
        elif before != plan:
            told = "; ".join(plan.differences(before))
            raise FileError(
                f"{shown(str(self.out))} was begun with another plan ({told}); "
                "give the same command as then, or another folder"
            )
        with told_full(self.out):
            shutil.rmtree(self._tmp, ignore_errors=True)  # parts of files that a killed run was writing
            self._made.discard(self._tmp)
            self.spool.mkdir(exist_ok=True)

    def put(self, path: Path, data: bytes) -> None:
        """Store `data` as `path`, in the place of what is there. Durable after the next `sync`."""
        with self.writing(path) as file:
            file.write(data)

    def put_all(self, files: Sequence[tuple[Path, bytes]]) -> None:
        """`put` for several files at once: a disk takes many fsyncs together for the price of few."""
        written = [self._writers.submit(self.put, path, data) for path, data in files]
        wait(written)
        for one in written:
            one.result()

    @contextmanager
    def writing(self, path: Path) -> Iterator[BinaryIO]:
        """A file that becomes `path` when the block ends well."""
        with told_full(self.out):
            self._folder(path.parent)
            self._folder(self._tmp)
            part = self._tmp / path.name
            try:
                with open(part, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        self._dirty.add(path.parent)

    def move(self, old: Path, new: Path) -> None:
        """Give a stored file its place. Durable after the next `sync`."""
        with told_full(self.out):
            self._folder(new.parent)
            os.replace(old, new)
        self._dirty |= {old.parent, new.parent}

    def sync(self) -> None:
        """Let every name that was given since the last time outlive a loss of power."""
        with told_full(self.out):
            for folder in self._dirty:
                sync(folder)
        self._dirty.clear()

    def discard(self, paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def clean(self) -> None:
        """Remove what only an unfinished run needs."""
        shutil.rmtree(self._tmp, ignore_errors=True)
        shutil.rmtree(self.spool, ignore_errors=True)

    def close(self) -> None:
        self._writers.shutdown()
        self._lock.close()

    def _folder(self, folder: Path) -> None:
        if folder not in self._made:
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                self._dirty.add(folder.parent)
            self._made.add(folder)


@contextmanager
def told(out: Path) -> Iterator[None]:
    """Errors of the file system as one sentence."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{shown(str(out))} cannot be written to: {error.strerror or error}") from error


@contextmanager
def told_full(out: Path) -> Iterator[None]:
    """The same, with advice where the disk is full."""
    try:
        with told(out):
            yield
    except FileError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:
            raise FileError(
                f"{shown(str(out))} has no room left; finished pictures are kept, "
                "make room and give the same command again"
            ) from error
        raise
