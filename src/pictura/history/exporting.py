"""Pictures out of the history as a data set: a folder, a `datasets` folder, a zip.

Each has the pictures as they lie in the history and, for each, all that made it and what people thought of it
(`COLUMNS`). A folder appears under its name when it is whole. What a killed export left is hidden beside it,
and the next one of the same name goes on from there; a target that exists is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

from pictura import arrow
from pictura.errors import FileError, ParameterError, did_you_mean, shown
from pictura.history.entries import Entry
from pictura.picture.files import atomic, hold, sha256

__all__ = ["COLUMNS", "FORMATS", "Exported", "export", "facts", "zipped"]

FORMATS = ("folder", "datasets", "zip")
SHARD = 500 << 20  # bytes of pictures in one Arrow file
COLUMNS = {
    "id": "string",
    "made_at": "string",  # ISO 8601, UTC
    **arrow.MADE,
    "sha256": "string",
    "stars": "int64",
    "note": "string",
    **arrow.SAID,
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """path: what was written. count: pictures in it. missing: ids of those whose file is gone or damaged."""

    path: Path
    count: int
    missing: tuple[str, ...]


def export(entries: Iterable[Entry], target: str | os.PathLike[str], form: str = "folder") -> Exported:
    """Write `entries` to `target`, which must not exist.

    form: "folder" (PNG files and metadata.jsonl, as `datasets`' imagefolder reads them), "datasets" (for
    `datasets.load_from_disk`) or "zip" (the folder, packed).

    A picture whose file is gone does not stop the others. FileError where the target exists, cannot be
    written to or is being written by another process; ParameterError for another form.
    """
    if form not in FORMATS:
        raise ParameterError(f"format {shown(form)} is unknown; {did_you_mean(str(form), FORMATS)}",
                             parameter="format")  # fmt: skip
    target = Path(target)
    missing: list[str] = []
    sound = _sound(entries, missing)
    if form == "zip":
        count, chunks = _counted(sound)
        with atomic(target) as file, _told(target):
            for chunk in _zip(chunks):
                file.write(chunk)
        return Exported(path=target, count=count(), missing=tuple(missing))
    if os.path.lexists(target):
        raise FileError(f"{shown(str(target))} exists already; choose another name")
    with _told(target), _hidden(target) as part:
        write = _write_folder if form == "folder" else _write_dataset
        number = write(sound, part)
        os.rename(part, target)
    return Exported(path=target, count=number, missing=tuple(missing))


def zipped(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The bytes of a zip with the pictures and metadata.jsonl, while it is written: for an answer over HTTP.

    Pictures whose file is gone or damaged are named in missing.txt, which is there only then.
    """
    missing: list[str] = []
    yield from _zip(_sound(entries, missing), missing)


def facts(entry: Entry) -> dict[str, Any]:
    """Every column of a picture."""
    made_at = datetime.fromtimestamp(entry.made_at / 1e6, UTC)
    known = {name: getattr(entry, name) for name in ("id", "model_digest", "sha256", "stars", "note")}
    known |= {
        "made_at": made_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "version": entry.details.get("version"),
        "notes": list(entry.details.get("notes", ())),
        "ignored": list(entry.details.get("ignored", ())),
    }
    return arrow.facts(COLUMNS, entry.request, entry.size, **known)


Sound = tuple[Entry, bytes]  # with its file, which is what was stored


def _sound(entries: Iterable[Entry], missing: list[str]) -> Iterator[Sound]:
    for entry in entries:
        try:
            content = entry.content()
        except FileError:
            missing.append(entry.id)
        else:
            yield entry, content


def _counted(rows: Iterator[Sound]) -> tuple[Callable[[], int], Iterator[Sound]]:
    """How many rows have gone by so far, and the rows."""
    number = 0

    def passing() -> Iterator[Sound]:
        nonlocal number
        for row in rows:
            yield row
            number += 1

    return lambda: number, passing()


def _line(entry: Entry) -> bytes:
    return json.dumps({"file_name": _name(entry), **facts(entry)}, ensure_ascii=False).encode() + b"\n"


def _name(entry: Entry) -> str:
    return f"{entry.id}{entry.path.suffix}"


# Forms


def _write_folder(rows: Iterator[Sound], part: Path) -> int:
    wanted, there = {"metadata.jsonl"}, {path.name for path in part.iterdir()}
    with open(part / "metadata.jsonl", "wb") as lines:
        for entry, content in rows:
            name = _name(entry)
            wanted.add(name)
            lines.write(_line(entry))
            if name not in there or sha256(part / name) != entry.sha256:
                (part / name).write_bytes(content)
    for name in there - wanted:  # an earlier attempt wanted others
        (part / name).unlink()
    return len(wanted) - 1


def _write_dataset(rows: Iterator[Sound], part: Path) -> int:
    """Begins anew where it was interrupted: its files are few and large."""
    import pyarrow as pa

    for path in part.iterdir():
        path.unlink()
    count, passing = _counted(rows)
    shape, shards, told = arrow.schema(COLUMNS), list[str](), hashlib.sha256()
    while (first := next(passing, None)) is not None or not shards:
        shards.append(f"data-{len(shards):05d}.arrow")
        with pa.OSFile(str(part / shards[-1]), "wb") as file, pa.ipc.new_stream(file, shape) as writer:
            for batch in arrow.record_batches(_shard(first, passing, told), shape):
                writer.write_batch(batch)
    for name, content in arrow.dataset_files(shards, told.hexdigest()[:16], arrow.features(COLUMNS)):
        (part / name).write_bytes(content)
    return count()


def _shard(first: Sound | None, rest: Iterator[Sound], told: Any) -> Iterator[arrow.Row]:
    """Rows for one file; `told` learns what is in them."""
    size, row = 0, first
    while row is not None:
        entry, content = row
        told.update(_line(entry))
        yield facts(entry), _name(entry), content
        size += len(content)
        row = next(rest, None) if size < SHARD else None


def _zip(rows: Iterator[Sound], missing: list[str] | None = None) -> Iterator[bytes]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w") as packed, SpooledTemporaryFile(1 << 20) as lines:
        for entry, content in rows:
            packed.writestr(_info(_name(entry), entry.made_at), content)
            lines.write(_line(entry))
            yield sink.taken()
        length = lines.tell()
        lines.seek(0)
        # Its size is known, so that the reader need not be told afterwards.
        with packed.open(_info("metadata.jsonl"), "w", force_zip64=length > 1 << 31) as file:
            while block := lines.read(1 << 20):
                file.write(block)
                yield sink.taken()
        if missing:
            packed.writestr(_info("missing.txt"), "".join(f"{id}\n" for id in missing))
    yield sink.taken()


def _info(name: str, made_at: int | None = None) -> zipfile.ZipInfo:
    """The head of a file in a zip. Pictures are stored as they are: they are compressed already."""
    moment = time.gmtime(None if made_at is None else made_at / 1e6)[:6]
    head = zipfile.ZipInfo(name, max(moment, (1980, 1, 1, 0, 0, 0)))
    head.compress_type = zipfile.ZIP_DEFLATED if name == "metadata.jsonl" else zipfile.ZIP_STORED
    head.external_attr = 0o644 << 16
    return head


class _Sink:
    """A file that cannot go back and hands out what was written since the last time."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    close = flush

    def taken(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


# Places


@contextmanager
def _hidden(target: Path) -> Iterator[Path]:
    """A hidden folder beside `target`, ours alone; what is in it stays when the block fails."""
    part = target.with_name(f".{target.name}.part")
    part.mkdir(exist_ok=True)
    handle = os.open(part, os.O_RDONLY)
    try:
        hold(handle)
        if os.fstat(handle).st_ino != part.stat().st_ino:  # another process has just finished with it
            raise BlockingIOError
        yield part
    except (BlockingIOError, FileNotFoundError):
        raise FileError(f"{shown(str(target))} is being written by another process; wait for it") from None
    finally:
        os.close(handle)


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """Errors of the file system as one sentence."""
    try:
        yield
    except OSError as error:
        raise FileError(f"{shown(str(target))} cannot be written: {error.strerror or error}") from error
