"""The ledger: what has become of every picture, in SQLite with a write-ahead log, fsynced at each commit.

A picture's file is whole under its name before its row is here, so a row is never wrong. Pictures are settled
in order: all below `frontier` are, and of those above only the few that came early have rows. Going on
therefore reads a handful of rows however many there are.

    kept      is in the outputs        dropped   refused, or the same as an earlier one
    failed    could not be made        again     failed before, to be tried once more
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pictura.errors import FileError
from pictura.picture.files import sync

__all__ = ["AGAIN", "DROPPED", "FAILED", "KEPT", "Entry", "Ledger"]

KEPT, FAILED, DROPPED, AGAIN = 1, 2, 3, 4
COUNTED = {KEPT: "kept", FAILED: "failed", DROPPED: "dropped"}
SCHEMA = """
CREATE TABLE IF NOT EXISTS count (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS picture (
    number INTEGER PRIMARY KEY, state INTEGER NOT NULL, candidate INTEGER NOT NULL, facts TEXT, reason TEXT,
    content BLOB, looks INTEGER
);
-- SQLite uses this for queries that repeat "state <> 1", and for no others.
CREATE INDEX IF NOT EXISTS unsettled ON picture (state, number) WHERE state <> 1;
CREATE TABLE IF NOT EXISTS seen (content BLOB PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shelf (
    piece INTEGER NOT NULL, bits INTEGER NOT NULL, number INTEGER NOT NULL, looks INTEGER NOT NULL,
    PRIMARY KEY (piece, bits, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS late (number INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS reopened (shard INTEGER PRIMARY KEY);
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What has become of picture `index`. facts: the columns of a kept one. reason: why it is not kept.

    candidate: which one is kept.
    content: SHA-256 of its pixels. looks: its perceptual hash, where it was asked for.
    """

    index: int
    state: int
    candidate: int = 0
    facts: Mapping[str, Any] | None = None
    reason: str | None = None
    content: bytes | None = None
    looks: int | None = None


class Ledger:
    """The ledger in file `path`, made if need be. FileError where it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with _told(path):
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)
            self._counts: dict[str, int] = dict(self._db.execute("SELECT name, value FROM count"))

    def count(self, name: str) -> int:
        """One of the numbers that are kept: "kept", "failed", "dropped", "frontier", "sealed", "finished"."""
        return self._counts.get(name, 0)

    @contextmanager
    def commit(self) -> Iterator[None]:
        """What the block puts down is on the disk when it ends, or none of it is."""
        before = dict(self._counts)
        try:
            with _told(self._path):
                self._db.execute("BEGIN IMMEDIATE")
                yield
                changed = [item for item in self._counts.items() if before.get(item[0]) != item[1]]
                self._db.executemany("INSERT OR REPLACE INTO count VALUES (?, ?)", changed)
                self._db.execute("COMMIT")
        except BaseException:
            self._counts = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def set_count(self, name: str, value: int) -> None:
        self._counts[name] = value

    def put(self, entries: Iterable[Entry]) -> None:
        """Put down entries, in the place of earlier ones of the same pictures."""
        for entry in entries:
            self._uncount(entry.index)
            self._db.execute(
                "INSERT OR REPLACE INTO picture VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.index,
                    entry.state,
                    entry.candidate,
                    None if entry.facts is None else json.dumps(entry.facts, ensure_ascii=False),
                    entry.reason,
                    entry.content,
                    entry.looks,
                ),
            )
            name = COUNTED[entry.state]
            self._counts[name] = self.count(name) + 1

    def try_again(self) -> int:
        """Mark every failed picture as to be tried again; how many."""
        if not self.count("failed"):
            return 0
        with self.commit():
            number = self._db.execute("UPDATE picture SET state = 4 WHERE state = 2 AND state <> 1").rowcount
            self.set_count("failed", 0)
            self.set_count("finished", 0)
        return number

    def again(self) -> list[int]:
        """The pictures to be tried again, in order."""
        found = self._db.execute("SELECT number FROM picture WHERE state = 4 AND state <> 1 ORDER BY 1")
        return [row[0] for row in found]

    def entries(
        self, first: int, last: int | None = None, states: tuple[int, ...] = (KEPT,)
    ) -> Iterator[Entry]:
        """The entries from picture `first` up to but not with `last`, in order."""
        marks = ", ".join(map(str, states))
        # The unary plus keeps SQLite on the primary key, which is in the order wanted.
        state = "state <> 1 AND state" if KEPT not in states else "+state"
        found = self._db.execute(
            f"SELECT number, state, candidate, facts, reason, content, looks FROM picture "
            f"WHERE number >= ? AND number < ? AND {state} IN ({marks}) ORDER BY number",
            (first, 2**62 if last is None else last),
        )
        for index, state, candidate, facts, reason, content, looks in found:
            yield Entry(
                index=index,
                state=state,
                candidate=candidate,
                facts=None if facts is None else json.loads(facts),
                reason=reason,
                content=content,
                looks=looks,
            )

    def state(self, index: int) -> int | None:
        """What has become of a picture; None where that is open."""
        row = self._db.execute("SELECT state FROM picture WHERE number = ?", (index,)).fetchone()
        return None if row is None else row[0]

    def first_seen(self, content: bytes) -> int | None:
        """The kept picture that was marked as seen with this content."""
        row = self._db.execute("SELECT number FROM seen WHERE content = ?", (content,)).fetchone()
        return None if row is None else row[0]

    def mark_seen(self, content: bytes, index: int) -> None:
        self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (content, index))

    def shelve(self, shelves: Sequence[tuple[int, int]], number: int, looks: int) -> None:
        """As `looks.Shelves` has it."""
        rows = [(piece, bits, number, looks) for piece, bits in shelves]
        self._db.executemany("INSERT OR IGNORE INTO shelf VALUES (?, ?, ?, ?)", rows)

    def shelf(self, piece: int, bits: int) -> Iterator[tuple[int, int]]:
        """As `looks.Shelves` has it."""
        yield from self._db.execute(
            "SELECT number, looks FROM shelf WHERE piece = ? AND bits = ?", (piece, bits)
        )

    def add_late(self, index: int) -> None:
        """Note that a picture below the frontier has been made after all."""
        self._db.execute("INSERT OR IGNORE INTO late VALUES (?)", (index,))

    def late(self) -> list[Entry]:
        """The kept pictures that were made after their turn, without their columns, in order."""
        found = self._db.execute(
            # SQLite takes the tables of a CROSS JOIN in this order, which reads few pictures.
            "SELECT number, state, content, looks FROM late CROSS JOIN picture USING (number) ORDER BY number"
        )
        return [
            Entry(index=index, state=state, content=content, looks=looks)
            for index, state, content, looks in found
            if state == KEPT
        ]

    def clear_late(self) -> None:
        self._db.execute("DELETE FROM late")

    def reopen(self, shard: int) -> None:
        self._db.execute("INSERT OR IGNORE INTO reopened VALUES (?)", (shard,))

    def close_shard(self, shard: int) -> None:
        self._db.execute("DELETE FROM reopened WHERE shard = ?", (shard,))

    def reopened(self) -> list[int]:
        """Files that were written before a picture of theirs was made after all."""
        return [row[0] for row in self._db.execute("SELECT shard FROM reopened ORDER BY shard")]

    def finish(self) -> None:
        """Close the ledger as finished, as only the file says that takes its place: written anew in
        order, so that equal ledgers are equal files whatever their history."""
        fresh = self._path.with_suffix(".fresh")
        with _told(self._path):
            for left in self._path.parent.glob(f"{fresh.name}*"):
                left.unlink()
            copy = sqlite3.connect(fresh, isolation_level=None)
            with closing(copy):
                copy.executescript(SCHEMA)
                copy.execute("ATTACH ? AS old", (str(self._path),))
                copy.execute("BEGIN")
                copy.execute("INSERT INTO count SELECT * FROM old.count WHERE value <> 0 ORDER BY name")
                for table, key in (
                    ("picture", "number"), ("seen", "content"), ("shelf", "piece, bits, number")
                ):  # fmt: skip
                    copy.execute(f"INSERT INTO {table} SELECT * FROM old.{table} ORDER BY {key}")
                copy.execute("INSERT OR REPLACE INTO count VALUES ('finished', 1)")
                copy.execute("COMMIT")
                copy.execute("DETACH old")
                copy.execute("PRAGMA journal_mode=WAL")
            self.close()
            os.replace(fresh, self._path)
            sync(self._path.parent)

    def close(self) -> None:
        self._db.close()

    def _uncount(self, index: int) -> None:
        before = self.state(index)
        if before in COUNTED:
            self._counts[COUNTED[before]] -= 1


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
        raise FileError(
            f"the ledger {str(path)!r} cannot be used ({error}); make room or repair it, then run again"
        ) from error
