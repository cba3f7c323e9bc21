"""Prompt files: which kind a file is, and the kinds that are read line by line."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from pictura.batch.rows import Row, Source, digest_of, prompt_column, row_of
from pictura.errors import FileError, InputError, ParameterError, shown

__all__ = ["open_source"]

LONGEST = 1 << 20  # bytes of one line; what is longer is no prompt
LONGEST_CELL = 16 << 20  # characters that a text of CSV is read to its end for, so that the next row is found
Prompts = str | os.PathLike[str] | Sequence[Any]


def open_source(prompts: object, column: str | None = None, split: str | None = None) -> Source:
    """The rows that `prompts` stand for.

    A file by its ending: .jsonl or .ndjson, .csv, .tsv, .parquet, .toml (a template), anything else is one
    prompt a line. A folder that `datasets.save_to_disk` wrote, hf://datasets/owner/name where it is cached.
    In Python also a list of texts, mappings or requests, or a `datasets.Dataset`.
    column: which one holds the prompts. split: of a data set that has several.
    InputError where it cannot be read.
    """
    if isinstance(prompts, (str, os.PathLike)):
        return _named(os.fspath(prompts), column, split)
    from pictura.batch import tables

    tried = list(prompts.values()) if isinstance(prompts, Mapping) else [prompts]
    if tried and all(hasattr(one, "select_columns") for one in tried):  # of datasets, which need not be here
        if not all(hasattr(one, "__len__") for one in tried):
            raise ParameterError(
                "prompts is a data set that streams and may differ the next time; give one that is loaded",
                parameter="prompts",
            )
        return tables.dataset(prompts, column, split, "the data set")
    if isinstance(prompts, (list, tuple)):
        return Listed(rows_given=prompts, column=column)
    raise ParameterError(
        f"prompts is {shown(prompts)}; give a file, a list or a datasets.Dataset", parameter="prompts"
    )


def _named(name: str, column: str | None, split: str | None) -> Source:
    from pictura.batch import tables, template

    if name.startswith("hf://"):
        return tables.cached(name, column, split)
    path = Path(name)
    if path.is_dir():
        return tables.saved(path, column, split)
    if split is not None:
        message = f"split is for data sets, and {shown(name)} is no folder of one; leave it out"
        raise ParameterError(message, parameter="split")
    if path.exists() and not path.is_file():
        raise FileError(f"{shown(name)} cannot be read twice, as going on needs; save the prompts in a file")
    if not path.is_file():
        raise FileError(f"there is no file {shown(name)}; give one with a prompt on each line")
    ending = path.suffix.lower()
    if ending == ".parquet":
        return tables.parquet(path, column)
    if ending in (".csv", ".tsv"):
        return Separated(path=path, column=column, delimiter="\t" if ending == ".tsv" else ",")
    if ending in (".jsonl", ".ndjson"):
        return Lines(path=path, column=column, objects=True)
    if column is not None:
        raise ParameterError(f"{shown(name)} has no columns; leave column out", parameter="column")
    return template.read(path) if ending == ".toml" else Lines(path=path, column=None, objects=False)


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    column: str | None

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def digest(self) -> str:
        with _opened(self.path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Lines(_File):
    """One prompt a line, or with `objects` one JSON value a line. Blank lines are not counted."""

    objects: bool

    def count(self) -> int:
        with _opened(self.path) as file:
            return sum(1 for _ in _lines(file))

    def rows(self, start: int = 0) -> Iterator[Row]:
        with _opened(self.path) as file:
            for number, (at, line) in islice(enumerate(_lines(file)), start, None):
                yield self._row(number, f"{self.name}:{at}", line)

    def _row(self, number: int, place: str, line: bytes) -> Row:
        problem = None
        if len(line) > LONGEST:
            problem = f"the line is longer than {LONGEST:,} bytes; a prompt has at most 10,000 characters"
        else:
            try:
                text = line.decode().strip()
                if not self.objects:
                    return row_of(number, place, text, None)
                return row_of(number, place, json.loads(text, object_pairs_hook=_object), self.column)
            except ParameterError as error:
                problem = str(error)
            except UnicodeDecodeError as error:
                problem = f"the line is not UTF-8 (byte {error.start + 1}); save the file as UTF-8"
            except (ValueError, RecursionError) as error:
                problem = f"the line is not JSON ({str(error)[:100]}); give one JSON object a line"
        return Row(number=number, place=place, problem=problem)


@dataclass(frozen=True, kw_only=True)
class Separated(_File):
    """CSV or TSV (RFC 4180) whose first line names the columns; a line of a row is that of its end."""

    delimiter: str

    def count(self) -> int:
        return sum(1 for _ in self._cells())

    def rows(self, start: int = 0) -> Iterator[Row]:
        head = self._head
        column = prompt_column(head, self.column, self.name)
        for number, (at, cells) in islice(enumerate(self._cells()), start, None):
            place = f"{self.name}:{at}"
            problem = cells if isinstance(cells, str) else _unsound(cells, head)
            if problem is not None:
                yield Row(number=number, place=place, problem=problem)
            else:
                yield row_of(number, place, dict(zip(head, cells, strict=True)), column, text=True)

    @cached_property
    def _head(self) -> list[str]:
        with self._text() as file:
            try:
                head = next(csv.reader(file, delimiter=self.delimiter), [])
            except csv.Error as error:
                raise InputError(
                    f"{self.name} does not begin with the names of its columns: {error}"
                ) from error
        head = [name.strip() for name in head]
        for name in head:
            if name and head.count(name) > 1:
                raise InputError(f"{self.name} has several columns {shown(name)}; give each its own name")
        return head

    def _cells(self) -> Iterator[tuple[int, list[str] | str]]:
        """(line, cells or what is wrong) of every row after the first that is not blank."""
        with self._text() as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            first = True
            while True:
                try:
                    cells: list[str] | str = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    cells = f"the row cannot be read ({error}); check its quotes"
                if cells and not first:
                    yield reader.line_num, cells
                first = False

    def _text(self) -> Any:
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))  # of the process
        try:
            return open(self.path, encoding="utf-8-sig", errors="surrogateescape", newline="")
        except OSError as error:
            raise _unreadable(self.path, error) from error


def _unsound(cells: Sequence[str], head: Sequence[str]) -> str | None:
    if len(cells) != len(head):
        return f"the row has {len(cells)} values for {len(head)} columns; quote texts that hold a delimiter"
    if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
        return "the row is not UTF-8; save the file as UTF-8"
    return None


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A list that the caller holds in memory."""

    rows_given: Sequence[Any] = field(repr=False)
    column: str | None
    name: str = "prompts"

    @cached_property
    def digest(self) -> str:
        return digest_of(self.rows())

    def count(self) -> int:
        return len(self.rows_given)

    def rows(self, start: int = 0) -> Iterator[Row]:
        for number in range(start, len(self.rows_given)):
            yield row_of(number, f"{self.name}[{number}]", self.rows_given[number], self.column)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(line number, line) of every line that is not blank; of an endless one the beginning only."""
    number = 0
    while line := file.readline(LONGEST + 2):
        number += 1
        rest = line
        while len(rest) > LONGEST + 1 and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST + 2)
        if number == 1 and len(line) <= LONGEST:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield number, line


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ParameterError where it says a thing twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ParameterError(f"{shown(twice)} is there twice; give it once", parameter=twice)
    return values


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> FileError:
    return FileError(f"{shown(str(path))} cannot be read: {error.strerror or error}")
