"""Pictures that are on the disk and wait for their place: appended to a few files, many for one fsync.

A file of its own for each would cost an fsync, a rename and a removal each. A record is a header and the
PNG; CRC-32s tell those that a kill or a loss of power cut off. A run appends to files of its own only, so
that what was cut off is always the end of one.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pictura.picture.files import sync

__all__ = ["Key", "Spool"]

Key = tuple[int, int]  # number of a picture, number of a candidate for it

HEADER = struct.Struct("<4sQIQI")  # mark, key, length of the PNG, its CRC-32; then the CRC-32 of these
CHECK = struct.Struct("<I")
MARK = b"PNGs"
LARGEST = 64 << 20  # bytes after which a new file is begun, so that old ones can be removed


class _Place(NamedTuple):
    file: Path
    start: int
    length: int
    check: int


class Spool:
    """The pictures that wait in `folder`. Others may `get` while one thread writes. OSError where the disk
    fails.

    wanted: whether pictures of a number that earlier runs left may still be needed.
    """

    def __init__(self, folder: Path, wanted: Callable[[int], bool]) -> None:
        self._folder = folder
        self._places: dict[Key, _Place] = {}
        self._needed: Counter[Path] = Counter()  # pictures in each file
        self._file: BinaryIO | None = None
        files = sorted(folder.glob("*.spool"))
        for path in files:
            for key, place in _records(path):
                if wanted(key[0]):
                    self._put_down(key, place)
        for path in files:
            self._let_go(path)
        self._number = int(files[-1].stem) if files else 0  # of our last file; 0 is what `settle` left
        self._path = folder

    def put_all(self, pictures: Sequence[tuple[Key, bytes]]) -> None:
        """Append pictures. They outlive a loss of power once this returns."""
        if not pictures:
            return
        file = self._file or self._begin()
        start, records, places = file.tell(), [], []
        for key, data in pictures:
            head, check = _head(key, data)
            start += len(head)
            places.append(_Place(self._path, start, len(data), check))
            start += len(data)
            records += [head, data]
        try:
            file.write(b"".join(records))
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            self.close()  # so that nothing follows what may be cut off
            raise
        for (key, _), place in zip(pictures, places, strict=True):
            self._put_down(key, place)
        if start > LARGEST:
            self.close()

    def get(self, key: Key) -> bytes | None:
        """The PNG of a picture; None where it is not here, or not whole."""
        place = self._places.get(key)
        if place is None:
            return None
        with open(place.file, "rb") as file:
            file.seek(place.start)
            data = file.read(place.length)
        return data if len(data) == place.length and zlib.crc32(data) == place.check else None

    def discard(self, keys: Iterable[Key]) -> None:
        """Forget pictures, and remove files once they hold no others."""
        for key in keys:
            place = self._places.pop(key, None)
            if place is not None:
                self._needed[place.file] -= 1
                self._let_go(place.file)

    def settle(self, wanted: Callable[[int], bool]) -> None:
        """End with the wanted pictures in one file, whose bytes depend on nothing else; or with no file."""
        self.close()
        rest, part = self._folder / f"{0:08d}.spool", self._folder / "rest.part"
        old = {*self._folder.glob("*.spool"), part}
        keys = sorted(key for key in self._places if wanted(key[0]))
        if keys:
            with open(part, "wb") as file:
                for key in keys:
                    if (data := self.get(key)) is not None:
                        file.write(_head(key, data)[0] + data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, rest)
            sync(self._folder)
            old.discard(rest)
        for path in old:
            path.unlink(missing_ok=True)
        self._places.clear()
        self._needed.clear()

    def close(self) -> None:
        """End the file that pictures are appended to; the next ones begin another."""
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):  # what was promised is on the disk
                file.close()
            self._let_go(self._path)

    def _begin(self) -> BinaryIO:
        self._number += 1
        self._path = self._folder / f"{self._number:08d}.spool"
        self._file = open(self._path, "xb")  # noqa: SIM115 (held until close)
        sync(self._folder)
        return self._file

    def _put_down(self, key: Key, place: _Place) -> None:
        self.discard([key])  # an earlier one of the same key
        self._places[key] = place
        self._needed[place.file] += 1

    def _let_go(self, path: Path) -> None:
        if not self._needed[path] and not (self._file is not None and path == self._path):
            del self._needed[path]
            path.unlink(missing_ok=True)


def _head(key: Key, data: bytes) -> tuple[bytes, int]:
    """What goes before a picture, and the picture's CRC-32."""
    check = zlib.crc32(data)
    head = HEADER.pack(MARK, *key, len(data), check)
    return head + CHECK.pack(zlib.crc32(head)), check


def _records(path: Path) -> Iterator[tuple[Key, _Place]]:
    """The pictures of a file, up to where it was cut off. Reads their heads alone."""
    size = HEADER.size + CHECK.size
    with open(path, "rb") as file:
        while len(head := file.read(size)) == size:
            mark, index, candidate, length, check = HEADER.unpack_from(head)
            if mark != MARK or CHECK.unpack_from(head, HEADER.size)[0] != zlib.crc32(head[: HEADER.size]):
                return
            place = _Place(path, file.tell(), length, check)
            yield (index, candidate), place
            file.seek(length, os.SEEK_CUR)
