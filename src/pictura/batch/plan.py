"""What a batch is to make: all that decides a byte of its outputs, as one value that is kept beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from pictura import __version__
from pictura.batch.rows import Row
from pictura.discovery import unknown
from pictura.errors import FileError, ParameterError, shown
from pictura.inputs import whole
from pictura.request import MAX_SEED, Request

__all__ = ["Item", "Plan", "checked"]

FLAT = 10_000  # files in one folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """Picture `index` of a batch: requests for its candidates, of which one is kept, or what hinders it.

    stored: numbers of candidates that need not be drawn.
    """

    index: int
    row: int
    repetition: int
    place: str
    candidates: tuple[Request, ...] = ()
    problem: str | None = None
    stored: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Equal plans give equal files. Values come checked.

    source: the prompts' digest. parameters: what every row gets that does not say otherwise, by the names of
    Request's fields. seed: None for a model that draws without seeds. shard: pictures in one file, 0 where
    each has its own. version: Pictura's, which every picture records. wildcards, styles: digests of what
    prompts are put into words with.
    """

    source: str
    rows: int
    model: str
    model_digest: str | None
    seed: int | None
    num_images: int = 1
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = True
    best_of: int = 1
    scorers: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    min_score: float | None = None
    dedup: str | None = None
    format: str = "folder"
    shard: int = 1000
    wildcards: str | None = None
    styles: str | None = None
    version: str = __version__

    @property
    def total(self) -> int:
        """Pictures to make."""
        return self.rows * self.num_images

    @property
    def judged(self) -> bool:
        """Whether a picture is looked at before it is kept."""
        return self.best_of > 1 or bool(self.scorers) or bool(self.filters)

    @property
    def needs_looks(self) -> bool:
        """Whether perceptual hashes are compared."""
        return self.distance is not None

    @property
    def distance(self) -> int | None:
        """How many bits of 64 may differ between pictures that count as the same to the eye."""
        kind, _, bits = (self.dedup or "").partition(":")
        return None if kind != "perceptual" else int(bits)

    def name(self, index: int) -> str:
        """The name of picture `index` without an ending: its row and, where there are several, which one."""
        row, repetition = divmod(index, self.num_images)
        name = f"{row:0{max(8, len(str(self.rows - 1)))}d}"
        if self.num_images > 1:
            name += f"-{repetition:0{len(str(self.num_images - 1))}d}"
        return name

    def file_name(self, index: int) -> str:
        """Its file, below the folder of pictures; a folder holds at most 10,000."""
        return f"{self.folder_name(index)}{self.name(index)}.png"

    def folder_name(self, index: int) -> str:
        """The folder that its file is in, with a slash at the end, or "" where all fit into one."""
        return f"{index // FLAT:05d}/" if self.total > FLAT else ""

    @property
    def shards(self) -> int:
        """Files that the pictures go into; 0 where each has its own."""
        return -(-self.total // self.shard) if self.shard else 0

    def items(self, row: Row) -> list[Item]:
        """The pictures of one row: seeds count on from its own, or from the plan's over all pictures."""
        several = range(self.num_images)
        place: dict[str, Any] = {"row": row.number, "place": row.place}
        first = row.number * self.num_images
        if row.request is None:
            return [Item(index=first + r, repetition=r, problem=row.problem, **place) for r in several]
        asked = self._with_parameters(row.request)
        if self.seed is None and asked.seed is None:
            made = (asked,) * self.best_of
            return [Item(index=first + r, repetition=r, candidates=made, **place) for r in several]
        base = asked.seed if asked.seed is not None else (self.seed or 0) + first * self.best_of
        items = []
        for r in several:
            seeds = range(base + r * self.best_of, base + (r + 1) * self.best_of)
            if seeds[-1] > MAX_SEED:
                problem = f"seed is {base}, which leaves too few for all pictures; give a smaller one"
                items.append(Item(index=first + r, repetition=r, problem=problem, **place))
            else:
                made = tuple(replace(asked, seed=seed) for seed in seeds)
                items.append(Item(index=first + r, repetition=r, candidates=made, **place))
        return items

    def _with_parameters(self, request: Request) -> Request:
        """What the row does not say is as the plan says."""
        open_fields = {
            name: value
            for name, value in self.parameters.items()
            if name != "options" and getattr(request, name) is None
        }
        options = {**self.parameters.get("options", {}), **request.options}
        return replace(request, **open_fields, options=options)

    def to_json(self) -> str:
        """One line; equal plans give equal text."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote; FileError for anything else."""
        try:
            values = json.loads(text)
            values["scorers"], values["filters"] = tuple(values["scorers"]), tuple(values["filters"])
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise FileError(
                f"the plan beside the outputs cannot be read: {shown(str(error), 100)}"
            ) from error

    def differences(self, before: Plan) -> list[str]:
        """ "name: before -> now" for everything that is not the same."""
        found = []
        for name in (known.name for known in fields(self)):
            old, new = getattr(before, name), getattr(self, name)
            if old != new:
                label = {"source": "prompts (their SHA-256)"}.get(name, name)
                found.append(f"{label}: {_short(old)} -> {_short(new)}")
        return found


def checked(settings: Mapping[str, Any], *, seed: object, formats: Collection[str]) -> dict[str, Any]:
    """Settings as a plan has them, once each is possible; ParameterError otherwise."""
    done = dict(settings)
    for name, most in (("num_images", 10_000), ("best_of", 1000), ("shard", 1_000_000)):
        whole(name, done[name], most)
    if seed is not None:
        whole("seed", seed, MAX_SEED, least=0)
    if done["format"] not in formats:
        raise unknown("format", str(done["format"]), formats)
    done["dedup"] = _dedup(done["dedup"])
    least = done["min_score"]
    if least is not None and not (isinstance(least, (int, float)) and math.isfinite(least)):
        raise ParameterError(f"min_score is {shown(least)}; give a number", parameter="min_score")
    given = {name: value for name, value in done["parameters"].items() if value is not None}
    given["options"] = {name: value for name, value in given["options"].items() if value is not None}
    done["parameters"] = Request(prompt="", **given).to_dict()
    del done["parameters"]["prompt"]
    return done


def _dedup(given: object) -> str | None:
    """None, "exact" or "perceptual:BITS"; 4 bits where none are said."""
    if given is None:
        return None
    kind, _, bits = str(given).partition(":")
    if kind == "exact" and not bits:
        return kind
    if kind == "perceptual" and (bits or "4").isdecimal() and int(bits or "4") <= 16:
        return f"perceptual:{int(bits or '4')}"
    raise ParameterError(
        f"dedup is {shown(given)}; give exact, perceptual, or perceptual:BITS, 0..16 bits that may differ",
        parameter="dedup",
    )


def _short(value: object) -> str:
    text = value[:12] if isinstance(value, str) and len(value) == 64 else value
    return shown(text)
