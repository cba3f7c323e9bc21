"""Tables of prompts: Parquet files and data sets of the `datasets` library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pictura.batch.rows import COLUMNS, Row, Source, digest_of, prompt_column, row_of
from pictura.errors import FileError, InputError, did_you_mean, shown
from pictura.picture.files import sha256

__all__ = ["cached", "dataset", "parquet", "saved"]

GROUP = 1000  # rows read at once


def parquet(path: Path, column: str | None) -> Source:
    """The rows of a Parquet file; FileError where it is none."""
    return Parquet(path=path, wanted=column)


def saved(path: Path, column: str | None, split: str | None) -> Source:
    """The data set that `save_to_disk` wrote into folder `path`; FileError where there is none."""
    datasets = _library(f"{shown(str(path))} is a folder")
    with _told(f"folder {shown(str(path))} is no data set of datasets.save_to_disk"):
        found = datasets.load_from_disk(str(path))
    total = hashlib.sha256()
    for file in sorted(path.rglob("*.arrow")):
        with open(file, "rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return dataset(found, column, split, path.name, digest=total.hexdigest())


def cached(handle: str, column: str | None, split: str | None) -> Source:
    """hf://datasets/owner/name[@revision] from the cache of `datasets`; nothing is ever downloaded."""
    name, _, revision = handle.removeprefix("hf://datasets/").partition("@")
    if not handle.startswith("hf://datasets/") or name.count("/") > 1 or not name:
        raise InputError(f"prompts is {shown(handle)}; give hf://datasets/owner/name, a file or a folder")
    datasets = _library(f"{shown(handle)} is a data set")
    with _offline(datasets), _told(f"{shown(handle)} is not in the cache of datasets; download it first"):
        found = datasets.load_dataset(name, revision=revision or None)
    return dataset(found, column, split, handle)


def dataset(found: Any, column: str | None, split: str | None, name: str, digest: str = "") -> Source:
    """The rows of a `datasets.Dataset`, or of one split of a mapping of such."""
    if isinstance(found, Mapping):
        if split is None and len(found) > 1:
            raise InputError(f"{name} has several splits ({', '.join(found)}); name one with --split")
        chosen = next(iter(found)) if split is None else split
        if chosen not in found:
            raise InputError(f"split {shown(chosen)} is unknown; {did_you_mean(chosen, found)}")
        found = found[chosen]
        digest = f"{digest}:{chosen}" if digest else ""
    return Dataset(name=name, found=found, wanted=column, said=digest)


@dataclass(frozen=True, kw_only=True)
class Parquet:
    path: Path
    wanted: str | None

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def digest(self) -> str:
        return sha256(self.path)

    def count(self) -> int:
        with self._opened() as file:
            prompt_column(file.schema_arrow.names, self.wanted, self.name)
            return int(file.metadata.num_rows)

    def rows(self, start: int = 0) -> Iterator[Row]:
        with self._opened() as file:
            column = prompt_column(file.schema_arrow.names, self.wanted, self.name)
            used = [name for name in file.schema_arrow.names if name == column or name in COLUMNS]
            first = 0
            for group in range(file.metadata.num_row_groups):
                length = file.metadata.row_group(group).num_rows
                if first + length > start:
                    for batch in file.iter_batches(GROUP, row_groups=[group], columns=used):
                        yield from _rows(batch, first, start, self.name, column)
                        first += len(batch)
                else:
                    first += length

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            from pyarrow import parquet as library
        except ImportError as error:
            raise _missing("Parquet files need pyarrow") from error
        with _told(f"{shown(str(self.path))} is no Parquet file that can be read"):
            with library.ParquetFile(self.path) as file:
                yield file


@dataclass(frozen=True, kw_only=True)
class Dataset:
    name: str
    found: Any = field(repr=False)
    wanted: str | None
    said: str

    @cached_property
    def digest(self) -> str:
        if self.said:
            return self.said
        return digest_of(self.rows())

    def count(self) -> int:
        prompt_column(self.found.column_names, self.wanted, self.name)
        return len(self.found)

    def rows(self, start: int = 0) -> Iterator[Row]:
        column = prompt_column(self.found.column_names, self.wanted, self.name)
        used = [name for name in self.found.column_names if name == column or name in COLUMNS]
        table = self.found.select_columns(used).with_format("arrow")
        for first in range(start, len(table), GROUP):
            yield from _rows(table[first : first + GROUP], first, start, self.name, column)


def _rows(batch: Any, first: int, start: int, name: str, column: str) -> Iterator[Row]:
    """Rows from number `start` on of an Arrow table or batch that begins with number `first`."""
    for at in range(max(0, start - first), len(batch)):
        number = first + at
        place = f"{name}, row {number}"
        try:
            values = {key: batch.column(key)[at].as_py() for key in batch.schema.names}
        except UnicodeDecodeError:
            yield Row(number=number, place=place, problem="a text of the row is not UTF-8; write it again")
        else:
            yield row_of(number, place, values, column)


@contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Whatever a library raises over a file, as one sentence."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise FileError(f"{what} ({shown(str(error) or type(error).__name__, 120)})") from error


def _library(what: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise _missing(f"{what}, and data sets need the package datasets") from error
    return datasets


def _missing(what: str) -> InputError:
    return InputError(f"{what}; install it with: pip install 'pictura[data]'")
