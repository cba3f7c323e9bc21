"""The one writer of a batch: pictures in, files and ledger rows out, in the order that makes -9 harmless.

For a group of pictures that came together: those that have no place of their own yet into the spool
(`spool.py`), with one fsync; the others each under its name (`store.py`); scorers, filters; folders fsynced;
one commit of the ledger with what became of each; only then is anything forgotten. Files of many pictures
are written once all of theirs are settled. Whoever dies in between leaves pictures that the ledger does not
know: the next run takes them up, it does not make them again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from pictura.batch import outputs
from pictura.batch.drawn import Drawn, found, packed
from pictura.batch.judge import Judge, Verdict
from pictura.batch.ledger import DROPPED, FAILED, KEPT, Entry, Ledger
from pictura.batch.looks import Neighbours
from pictura.batch.outputs import Stored
from pictura.batch.plan import Item, Plan
from pictura.batch.spool import Key, Spool
from pictura.batch.store import Store, told_full
from pictura.errors import EngineError, FileError, PicturaError, shown
from pictura.picture import Picture

__all__ = ["Keeper"]

LARGE = 1 << 18  # pixels of a group from which on threads are worth their while


class Keeper:
    """Settles pictures in order of their numbers. `keep` is for one thread at a time."""

    def __init__(self, store: Store, ledger: Ledger, plan: Plan, judge: Judge) -> None:
        self._store, self._ledger, self._plan, self._judge = store, ledger, plan, judge
        self._output = outputs.load(plan.format)
        self._sealed = ledger.count("sealed") * plan.shard
        self._unwritten = {*ledger.reopened(), *(entry.index // (plan.shard or 1) for entry in ledger.late())}
        with told_full(store.out):
            self._spool = Spool(store.spool, self._awaited)
        self._packers = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="pictura-pack")
        self._open: dict[int, dict[int, Drawn]] = {}  # candidates of items that wait for their others
        self._early = {entry.index: replace(entry, facts=None) for entry in self._beyond()}
        self._near = Neighbours(plan.distance, ledger) if plan.distance is not None else None

    def known(self) -> set[int]:
        """Pictures above the frontier that need not be made."""
        return set(self._early)

    def stored(self, item: Item) -> list[Drawn]:
        """The candidates of an item that a killed run left on the disk."""
        left = []
        for candidate in range(len(item.candidates)):
            data = self._left((item.index, candidate))
            if data is not None:
                digest = self._plan.model_digest
                left.append(found(item, candidate, data, model_digest=digest, looks=self._plan.needs_looks))
        return [drawn for drawn in left if drawn is not None]

    def keep(self, group: Sequence[Drawn]) -> None:
        """Store a group and settle every item whose last candidate is in it. FileError where it cannot be."""
        group = self._packed(group)
        new = [drawn for drawn in group if drawn.data and not drawn.stored]
        if self._spools:
            with told_full(self._store.out):
                self._spool.put_all([(drawn.key, drawn.data) for drawn in new])
        else:
            files = [(self._place(drawn.item.index), drawn.data) for drawn in new]
            for place, _ in files:
                if place.exists():  # and was not found to be ours
                    raise FileError(f"{shown(str(place))} is of something else; move it and run again")
            self._store.put_all(files)
        complete = []
        for drawn in group:
            waiting = self._open.setdefault(drawn.item.index, {})
            waiting[drawn.candidate] = replace(drawn, data=b"")
            if len(waiting) >= len(drawn.item.candidates):
                del self._open[drawn.item.index]
                complete.append([waiting[at] for at in sorted(waiting)])
        entries = [self._settled(candidates) for candidates in complete]
        if self._spools and not self._plan.shards:
            kept = [entry for entry in entries if entry.state == KEPT]
            self._store.put_all([(self._place(entry.index), self._spooled(entry)) for entry in kept])
        self._store.sync()
        twins = self._put_down(entries)
        if not self._plan.shards:
            self._store.discard(map(self._place, twins))
        self._forget(entries, twins)
        self._write_shards()

    def finish(self) -> None:
        """What is written when nothing is left to be made; can be broken off and done again."""
        self._settle_late()
        self._write_shards()
        for number in self._ledger.reopened():
            self._write_shard(number)
            with self._ledger.commit():
                self._ledger.close_shard(number)
        if self._plan.dedup and not self._plan.shards:
            dropped = self._ledger.entries(0, states=(DROPPED,))
            self._store.discard(self._place(entry.index) for entry in dropped)
        with told_full(self._store.out):
            self._spool.settle(lambda index: self._ledger.state(index) == FAILED)
        self._output.finish(self._store, self._ledger, self._plan)

    def close(self) -> None:
        """Nothing more is kept by this keeper."""
        self._spool.close()
        self._packers.shutdown()

    def _packed(self, group: Sequence[Drawn]) -> Sequence[Drawn]:
        """The group as files. Large pictures by several threads, since compressing takes all the time."""
        pack = partial(packed, looks=self._plan.needs_looks)
        if sum(drawn.pixels for drawn in group) < LARGE:
            return [pack(drawn) for drawn in group]
        return list(self._packers.map(pack, group))

    # Where pictures are

    @property
    def _spools(self) -> bool:
        """Whether pictures wait: to be judged, or for a file that holds many."""
        return self._plan.judged or bool(self._plan.shards)

    def _place(self, index: int) -> Path:
        """The file of a picture that has one of its own."""
        return self._store.out / self._plan.file_name(index)

    def _left(self, key: Key) -> bytes | None:
        """A candidate that is on the disk."""
        if self._spools:
            return self._spool.get(key)
        place = self._place(key[0])
        return place.read_bytes() if place.exists() else None

    def _spooled(self, entry: Entry) -> bytes:
        """A kept picture that must be in the spool."""
        data = self._spool.get((entry.index, entry.candidate))
        if data is None:
            raise EngineError(f"picture {self._plan.name(entry.index)} is not in the spool; it was removed")
        return data

    def _awaited(self, index: int) -> bool:
        """Whether a picture that an earlier run left in the spool may still be needed."""
        if self._plan.shards and (index >= self._sealed or index // self._plan.shard in self._unwritten):
            return True
        return self._ledger.state(index) not in (KEPT, DROPPED)

    def _forget(self, entries: Sequence[Entry], twins: Sequence[int]) -> None:
        """Drop from the spool what has its place or will have none; failed ones may be tried again."""
        several = range(self._plan.best_of)
        for entry in entries:
            if entry.state != FAILED:
                kept = entry.candidate if entry.state == KEPT and self._plan.shards else None
                self._spool.discard((entry.index, at) for at in several if at != kept)
        self._spool.discard((index, at) for index in twins for at in several)

    # One item

    def _settled(self, candidates: Sequence[Drawn]) -> Entry:
        """What becomes of an item."""
        item = candidates[0].item
        good = [drawn for drawn in candidates if drawn.problem is None]
        if not good:
            return _failed(item, candidates[0].problem)
        if not self._plan.judged:
            return _kept(good[0], {})
        try:
            verdicts = self._verdicts(good)
        except PicturaError as error:  # the pictures stay, so that trying again does not make them again
            return _failed(item, str(error))
        best = self._judge.best(verdicts)
        if best is None:
            return Entry(index=item.index, state=DROPPED, reason=verdicts[0].refused)
        return _kept(good[best], {"scores": dict(verdicts[best].scores)} if self._plan.scorers else {})

    def _verdicts(self, good: Sequence[Drawn]) -> Sequence[Verdict]:
        given = [drawn.verdict for drawn in good if drawn.verdict is not None]
        if len(given) == len(good):
            return given
        return self._judge.look(
            [drawn.picture or Picture.open(self._left(drawn.key) or b"") for drawn in good]
        )

    # The ledger

    def _beyond(self) -> Iterator[Entry]:
        frontier = self._ledger.count("frontier")
        return self._ledger.entries(frontier, states=(KEPT, FAILED, DROPPED))

    def _put_down(self, entries: Sequence[Entry]) -> list[int]:
        """Commit the entries and go on with the frontier; the pictures that an earlier one equals."""
        twins: list[int] = []
        frontier = self._ledger.count("frontier")
        with self._ledger.commit():
            self._ledger.put(entries)
            for entry in entries:
                if entry.index < frontier:
                    self._ledger.add_late(entry.index)
                else:
                    self._early[entry.index] = replace(entry, facts=None)
            while frontier in self._early:
                self._drop_twin(self._early.pop(frontier), twins)
                frontier += 1
            self._ledger.set_count("frontier", frontier)
        return twins

    def _drop_twin(self, entry: Entry, twins: list[int]) -> None:
        """Drop a kept picture that an earlier kept one equals."""
        if self._plan.dedup is None or entry.state != KEPT:
            return
        first = self._twin(entry)
        if first is not None and first != entry.index:
            reason = f"looks like {self._plan.name(first)}"
            self._ledger.put([Entry(index=entry.index, state=DROPPED, reason=reason)])
            twins.append(entry.index)

    def _twin(self, entry: Entry) -> int | None:
        if self._near is not None:
            assert entry.looks is not None
            first = self._near.near(entry.looks)
            if first is None:
                self._near.add(entry.looks, entry.index)
            return first
        assert entry.content is not None
        self._ledger.mark_seen(entry.content, entry.index)
        return self._ledger.first_seen(entry.content)

    def _settle_late(self) -> None:
        """Pictures that came after their turn, because they had failed before, in order of their numbers."""
        twins: list[int] = []
        with self._ledger.commit():
            for entry in self._ledger.late():
                self._drop_twin(entry, twins)
                if self._plan.shards:
                    self._ledger.reopen(entry.index // self._plan.shard)
            self._ledger.clear_late()

    # Files of many pictures

    def _write_shards(self) -> None:
        """Write every file whose pictures are all settled, then forget what it was written from."""
        if not self._plan.shards:
            return
        frontier, size = self._ledger.count("frontier"), self._plan.shard
        while (number := self._ledger.count("sealed")) < self._plan.shards:
            first, last = number * size, min((number + 1) * size, self._plan.total)
            if frontier < last:
                return
            self._write_shard(number)
            with self._ledger.commit():
                self._ledger.set_count("sealed", number + 1)
            kept = self._ledger.entries(first, last)
            self._spool.discard((entry.index, entry.candidate) for entry in kept)

    def _write_shard(self, number: int) -> None:
        assert self._output.shard is not None and self._output.write is not None
        path = self._store.out / self._output.shard(self._plan, number)
        with self._store.writing(path) as file:
            self._output.write(file, self._rows(number, path), self._plan)
        self._store.sync()

    def _rows(self, number: int, path: Path) -> Iterator[Stored]:
        """The kept pictures of a file, from the spool or from the file as it was before."""
        assert self._output.read is not None
        size = self._plan.shard
        before = iter(self._output.read(path)) if path.exists() else iter(())
        for entry in self._ledger.entries(number * size, min((number + 1) * size, self._plan.total)):
            name = Path(self._plan.file_name(entry.index)).name
            data = self._spool.get((entry.index, entry.candidate))
            if data is None:
                data = next((data for old, data in before if old == name), None)
            if data is None:
                raise EngineError(
                    f"picture {name} is neither in the spool nor in {path.name}; it was removed"
                )
            yield entry.facts or {}, name, data


def _kept(drawn: Drawn, more: dict[str, object]) -> Entry:
    return Entry(
        index=drawn.item.index,
        state=KEPT,
        candidate=drawn.candidate,
        facts={**drawn.facts, **more},
        content=drawn.content,
        looks=drawn.looks,
    )


def _failed(item: Item, reason: str | None) -> Entry:
    asked = item.candidates[0].to_dict() if item.candidates else {}
    return Entry(index=item.index, state=FAILED, facts={"place": item.place, **asked}, reason=reason)
