"""A candidate picture on its way from the model to the outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pictura.batch.columns import facts_of
from pictura.batch.judge import Verdict
from pictura.batch.looks import content_hash, perceptual_hash
from pictura.batch.plan import Item
from pictura.errors import InputError
from pictura.picture import Picture

__all__ = ["Drawn", "failed", "found", "packed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Candidate `candidate` of an item: a picture, once `packed` with its file and its columns, or why there
    is none.

    stored: it is on the disk already.
    """

    item: Item
    candidate: int = 0
    problem: str | None = None
    data: bytes = b""
    facts: Mapping[str, Any] = field(default_factory=dict)
    content: bytes = b""
    looks: int | None = None
    picture: Picture | None = None
    verdict: Verdict | None = None
    stored: bool = False

    @property
    def key(self) -> tuple[int, int]:
        """What it is called in the spool."""
        return self.item.index, self.candidate

    @property
    def pixels(self) -> int:
        """What it takes of memory and time, roughly."""
        return 0 if self.picture is None else math.prod(self.picture.image.size)


def failed(item: Item, candidate: int, problem: object) -> Drawn:
    return Drawn(item=item, candidate=candidate, problem=" ".join(str(problem).split()))


def packed(drawn: Drawn, *, looks: bool) -> Drawn:
    """With its picture as it will be stored. looks: and its perceptual hash."""
    picture = drawn.picture
    if picture is None or drawn.facts:
        return drawn
    content = content_hash(picture.image)
    return replace(
        drawn,
        data=drawn.data or picture.to_bytes(),
        facts=facts_of(picture, drawn.item, content),
        content=content,
        looks=perceptual_hash(picture.image) if looks else None,
    )


def found(item: Item, candidate: int, data: bytes, *, model_digest: str | None, looks: bool) -> Drawn | None:
    """The candidate that a killed run had stored but not yet put down; None where that is another picture."""
    try:
        picture = Picture.open(data)
    except InputError:
        return None
    asked, made = item.candidates[candidate].to_dict(), picture.request.to_dict()
    chosen = "template" in asked.get("options", {})  # in the batch already
    if "template" in made.get("options", {}) and not chosen:  # the prompt had choices in it
        made["prompt"] = made["options"]["template"]
    given = {**asked.pop("options", {}), **asked}
    made = {**made.pop("options", {}), **made}
    same = all(made.get(name) == value for name, value in given.items() if name not in picture.ignored)
    if not same or picture.model_digest != model_digest:
        return None
    drawn = Drawn(item=item, candidate=candidate, picture=picture, data=data, stored=True)
    return packed(drawn, looks=looks)
