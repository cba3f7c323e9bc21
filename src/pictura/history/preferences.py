"""Ratings and choices as a data set of preferences: two pictures of one prompt, and which of them was liked.

A choice says it directly. Stars say it where two pictures of the same prompt have different ones, unless
somebody compared those two themselves. Choices that contradict each other are both kept: how often people
disagree is what a reward model learns its certainty from.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from pictura import __version__
from pictura.errors import InputError, ParameterError, shown
from pictura.formats.preset import fresh
from pictura.history.database import begin
from pictura.history.store import Entry, History
from pictura.history.tables import choices, pictures, ratings

__all__ = ["Exported", "Pair", "export_preferences", "pairs"]

TABLE, FOLDER = "metadata.jsonl", "images"  # as the `imagefolder` of the datasets library has them
PER_PROMPT = 100  # pairs that stars may give of one prompt; n pictures would give n (n - 1) / 2


@dataclass(frozen=True, kw_only=True)
class Pair:
    """`winner` was liked better than `loser`, a picture of the same prompt.

    source: "choice" or "stars"; votes: how many choices said so, 1 for stars; told_at: when it was said last,
    microseconds since 1970.
    """

    prompt: str
    winner: Entry
    loser: Entry
    source: str
    votes: int
    told_at: int

    def row(self) -> dict[str, Any]:
        """A line of the table: JSON values of the same types in every row."""
        sides = {"winner": self.winner, "loser": self.loser}
        return {
            **{f"{side}_file_name": _file_name(entry) for side, entry in sides.items()},
            "prompt": self.prompt,
            "source": self.source,
            "votes": self.votes,
            "told_at": self.told_at,
            **{f"{side}_{name}": value for side, entry in sides.items() for name, value in _made(entry)},
        }


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written to `folder`. left_out: choices between pictures of different prompts, or
    between a picture and itself."""

    folder: Path
    choices: int
    stars: int
    prompts: int
    pictures: int
    left_out: int

    @property
    def pairs(self) -> int:
        return self.choices + self.stars


def pairs(history: History, *, min_margin: int = 1, per_prompt: int = PER_PROMPT) -> Iterator[Pair]:
    """Every preference that the history holds: choices, oldest first, then stars.

    min_margin: by how many stars two pictures must differ. per_prompt: so many pairs at most that stars give
    of one prompt, the same ones each time. A pair of identical files says nothing and is left out.
    ParameterError.
    """
    for name, value, most in (("min_margin", min_margin, 4), ("per_prompt", per_prompt, 10**6)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ParameterError(f"{name} is {shown(value)}; give a whole number 1..{most}", parameter=name)
    chosen = list(_chosen(history))
    compared = {frozenset((pair.winner.id, pair.loser.id)) for pair in chosen}
    yield from filter(_says_something, chosen)
    yield from _starred(history, compared, min_margin, per_prompt)


def export_preferences(
    history: History, folder: str | os.PathLike[str], *, min_margin: int = 1, per_prompt: int = PER_PROMPT
) -> Exported:
    """Write `pairs` to a new folder, whole or not at all: metadata.jsonl, the pictures, and a data card.

    `datasets.load_dataset("imagefolder", data_dir=folder)` gives it with the columns winner, loser, prompt,
    source, votes and what made each picture; so does `TextToImage.fit(folder)` after `compile(loss="dpo")`.
    InputError where there is no preference, FileError where `folder` is in the way or a picture is gone.
    """
    found = list(pairs(history, min_margin=min_margin, per_prompt=per_prompt))
    strange = sum(not _says_something(pair) for pair in _chosen(history))
    if not found:
        left_out = f"; {strange} choices are between pictures of different prompts" if strange else ""
        raise InputError(
            f"the history holds no preferences{left_out}; rate pictures of the same prompt differently, or "
            "choose between two of them"
        )
    entries = {entry.sha256: entry for pair in found for entry in (pair.winner, pair.loser)}
    counted = Counter(pair.source for pair in found)
    done = Exported(
        folder=Path(folder),
        choices=counted["choice"],
        stars=counted["stars"],
        prompts=len({pair.prompt for pair in found}),
        pictures=len(entries),
        left_out=strange,
    )
    _write(history, done, found, entries.values())
    return done


def _chosen(history: History) -> Iterator[Pair]:
    """Each two pictures that were compared, whatever their prompts, in the order of the first comparison."""
    winner, loser = pictures.alias(), pictures.alias()
    counted = (
        select(
            choices.c.winner_id,
            choices.c.loser_id,
            func.count().label("votes"),
            func.max(choices.c.made_at).label("told_at"),
            func.min(choices.c.seq).label("first"),
        )
        .group_by(choices.c.winner_id, choices.c.loser_id)
        .subquery()
    )
    with begin(history.engine, reading=True) as connection:
        said = connection.execute(select(counted).order_by(counted.c.first)).all()
        sides = [
            connection.execute(
                select(side).select_from(counted.join(side, side.c.id == key)).order_by(counted.c.first)
            ).all()
            for side, key in ((winner, counted.c.winner_id), (loser, counted.c.loser_id))
        ]
    for row, better, worse in zip(said, *sides, strict=True):
        liked, other = history.entry(better), history.entry(worse)
        yield Pair(
            prompt=liked.request.prompt,
            winner=liked,
            loser=other,
            source="choice",
            votes=row.votes,
            told_at=row.told_at,
        )


def _starred(
    history: History, compared: set[frozenset[str]], min_margin: int, per_prompt: int
) -> Iterator[Pair]:
    with begin(history.engine, reading=True) as connection:
        last = select(ratings.c.picture_id, func.max(ratings.c.made_at)).where(ratings.c.stars.is_not(None))
        told = {id: at for id, at in connection.execute(last.group_by(ratings.c.picture_id))}
    of_prompt: dict[str, list[Entry]] = {}
    for entry in history.walk(rated=True):
        of_prompt.setdefault(entry.request.prompt, []).append(entry)
    for prompt, entries in of_prompt.items():
        found = []
        for one, other in itertools.combinations(reversed(entries), 2):
            better, worse = (one, other) if (one.stars or 0) > (other.stars or 0) else (other, one)
            apart = (better.stars or 0) - (worse.stars or 0) >= min_margin
            if apart and better.sha256 != worse.sha256 and frozenset((one.id, other.id)) not in compared:
                found.append((better, worse))
        if len(found) > per_prompt:  # by chance, but the same ones each time
            found = sorted(found, key=lambda pair: _mixed(*pair))[:per_prompt]
        for better, worse in found:
            yield Pair(
                prompt=prompt,
                winner=better,
                loser=worse,
                source="stars",
                votes=1,
                told_at=max(told[better.id], told[worse.id]),
            )


def _write(history: History, done: Exported, found: Iterable[Pair], entries: Iterable[Entry]) -> None:
    with fresh(done.folder, mark=TABLE) as new:
        (new / FOLDER).mkdir()
        for entry in entries:
            (new / _file_name(entry)).write_bytes(history.blobs.get(entry.sha256, entry.path.suffix))
        with open(new / TABLE, "w", encoding="utf-8") as file:
            file.writelines(json.dumps(pair.row(), ensure_ascii=False) + "\n" for pair in found)
        (new / "README.md").write_text(_card(done), encoding="utf-8")


def _says_something(pair: Pair) -> bool:
    same = pair.winner.request.prompt == pair.loser.request.prompt
    return same and pair.winner.sha256 != pair.loser.sha256


def _file_name(entry: Entry) -> str:
    return f"{FOLDER}/{entry.sha256}{entry.path.suffix}"


def _made(entry: Entry) -> Iterator[tuple[str, Any]]:
    """Where a side of a pair comes from. The request is a text, as its options differ from row to row."""
    yield "id", entry.id
    yield "stars", entry.stars
    yield "model", entry.request.model or ""
    yield "model_digest", entry.model_digest or ""
    yield "request", entry.request.to_json()


def _mixed(better: Entry, worse: Entry) -> str:
    return hashlib.sha256(f"{better.id} {worse.id}".encode()).hexdigest()


def _card(done: Exported) -> str:
    return f"""# Preferences

{done.pairs} times somebody liked one picture of a prompt better than another: {done.choices} pairs from
choices, {done.stars} from stars, {done.prompts} prompts, {done.pictures} pictures. Exported by Pictura
{__version__}.

A line of `{TABLE}` is a pair: `winner_file_name`, `loser_file_name`, `prompt`, `source` (choice or
stars), `votes` (how many choices said so), `told_at` (microseconds since 1970, UTC), and of each picture its
id in the history, stars, model, digest of the model's weights and whole request.

```python
from datasets import load_dataset

pairs = load_dataset("imagefolder", data_dir="path/to/this/folder", split="train")
```
"""
