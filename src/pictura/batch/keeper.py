"""The one writer of a batch: pictures in, files and ledger rows out, in the order that makes -9 harmless.

For a group of pictures that came together: each file under its name and fsynced (`store.py`); scorers,
filters; folders fsynced; one commit of the ledger with what became of each; only then is anything deleted.
Files of many pictures are written once all of theirs are settled. Whoever dies in between leaves files that
the ledger does not know: the next run takes them up, it does not make them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pictura.batch import outputs
from pictura.batch.drawn import Drawn, found
from pictura.batch.judge import Judge, Verdict
from pictura.batch.ledger import DROPPED, FAILED, KEPT, Entry, Ledger
from pictura.batch.looks import Neighbours
from pictura.batch.outputs import Stored
from pictura.batch.plan import Item, Plan
from pictura.batch.store import Store
from pictura.errors import EngineError, PicturaError
from pictura.picture import Picture

__all__ = ["Keeper"]


class Keeper:
    """Settles pictures in order of their numbers. `keep` is for one thread at a time."""

    def __init__(self, store: Store, ledger: Ledger, plan: Plan, judge: Judge) -> None:
        self._store, self._ledger, self._plan, self._judge = store, ledger, plan, judge
        self._output = outputs.load(plan.format)
        self._open: dict[int, dict[int, Drawn]] = {}  # candidates of items that wait for their others
        self._early = {entry.index: replace(entry, facts=None) for entry in self._beyond()}
        self._near = Neighbours(plan.distance) if plan.distance is not None else None
        if self._near is not None:
            for number, looks in ledger.looks():
                self._near.add(looks, number)

    def known(self) -> set[int]:
        """Pictures above the frontier that need not be made."""
        return set(self._early)

    def stored(self, item: Item) -> list[Drawn] | None:
        """All candidates of an item as a killed run left them; None where one is missing."""
        left = []
        for candidate in range(len(item.candidates)):
            path = self._place(item, candidate)
            if not path.exists():
                return None
            digest = self._plan.model_digest
            drawn = found(item, candidate, path, model_digest=digest, looks=self._plan.needs_looks)
            if drawn is None:
                return None
            left.append(drawn)
        return left

    def keep(self, group: Sequence[Drawn]) -> None:
        """Store a group and settle every item whose last candidate is in it. FileError where it cannot be."""
        new = [drawn for drawn in group if drawn.data and not drawn.stored]
        self._store.put_all([(self._place(drawn.item, drawn.candidate), drawn.data) for drawn in new])
        complete = []
        for drawn in group:
            waiting = self._open.setdefault(drawn.item.index, {})
            waiting[drawn.candidate] = replace(drawn, data=b"")
            if len(waiting) == max(1, len(drawn.item.candidates)):
                del self._open[drawn.item.index]
                complete.append([waiting[at] for at in sorted(waiting)])
        rivals: list[Path] = []
        entries = [self._settled(candidates, rivals) for candidates in complete]
        self._store.sync()
        twins = self._put_down(entries)
        self._store.discard([*rivals, *map(self._kept_place, twins)])
        self._write_shards()

    def finish(self) -> None:
        """What is written when nothing is left to be made; can be broken off and done again."""
        self._settle_late()
        self._write_shards()
        for number in self._ledger.reopened():
            self._write_shard(number)
            with self._ledger.commit():
                self._ledger.close_shard(number)
        if self._plan.dedup:
            dropped = self._ledger.entries(0, states=(DROPPED,))
            self._store.discard(self._kept_place(entry.index) for entry in dropped)
        self._output.finish(self._store, self._ledger, self._plan)

    # One item

    def _settled(self, candidates: Sequence[Drawn], rivals: list[Path]) -> Entry:
        """What becomes of an item; files that are not kept are appended to `rivals`."""
        item = candidates[0].item
        good = [drawn for drawn in candidates if drawn.problem is None]
        if not good:
            return _failed(item, candidates[0].problem)
        if not self._plan.judged:
            return _kept(good[0], {})
        try:
            verdicts = self._verdicts(good)
        except PicturaError as error:  # the files stay, so that trying again does not make them again
            return _failed(item, str(error))
        best = self._judge.best(verdicts)
        for at, drawn in enumerate(good):
            if at != best:
                rivals.append(self._place(item, drawn.candidate))
        if best is None:
            return Entry(index=item.index, state=DROPPED, reason=verdicts[0].refused)
        self._store.move(self._place(item, good[best].candidate), self._kept_place(item.index))
        return _kept(good[best], {"scores": dict(verdicts[best].scores)} if self._plan.scorers else {})

    def _verdicts(self, good: Sequence[Drawn]) -> Sequence[Verdict]:
        given = [drawn.verdict for drawn in good if drawn.verdict is not None]
        if len(given) == len(good):
            return given
        places = [self._place(drawn.item, drawn.candidate) for drawn in good]
        return self._judge.look(
            [drawn.picture or Picture.open(place) for drawn, place in zip(good, places, strict=True)]
        )

    def _place(self, item: Item, candidate: int) -> Path:
        """Where a candidate is stored when it comes."""
        if not self._plan.judged:
            return self._kept_place(item.index)
        return self._store.spool / f"{self._plan.name(item.index)}.{candidate}.png"

    def _kept_place(self, index: int) -> Path:
        """Where a picture is kept, or waits for its shard."""
        root = self._store.spool if self._plan.shards else self._store.out
        return root / self._plan.file_name(index)

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
            self._store.discard(self._kept_place(index) for index in range(first, last))

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
            place = self._kept_place(entry.index)
            if place.exists():
                data = place.read_bytes()
            else:
                data = next((data for old, data in before if old == name), b"")
            if not data:
                raise EngineError(
                    f"picture {name} is neither in the spool nor in {path.name}; it was removed"
                )
            yield entry.facts or {}, name, data


def _kept(drawn: Drawn, more: dict[str, object]) -> Entry:
    return Entry(
        index=drawn.item.index,
        state=KEPT,
        facts={**drawn.facts, **more},
        content=drawn.content,
        looks=drawn.looks,
    )


def _failed(item: Item, reason: str | None) -> Entry:
    asked = item.candidates[0].to_dict() if item.candidates else {}
    return Entry(index=item.index, state=FAILED, facts={"place": item.place, **asked}, reason=reason)
