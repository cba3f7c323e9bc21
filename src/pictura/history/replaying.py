"""Making a picture again and saying whether it is the same.

    again = replay(history.get(id), lambda then: model.generate(then.request, strict=not then.ignored))
    again.identical, again.differences

Who draws is the caller's business: a model in this process, or a server's worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pictura.history.entries import Entry
from pictura.picture import Picture
from pictura.request import Request

__all__ = ["Replay", "compared", "replay", "sentences"]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """identical: every pixel is the same. differences: JSON values, only of what differs:

        "size"          {"then": [w, h], "now": [w, h]}, and no "pixels"
        "pixels"        {"differing": how many, "of": how many there are, "most": largest difference of 255}
        "request"       {field: {"then": ..., "now": ...}}
        "model_digest"  {"then": ..., "now": ...}
        "version"       {"then": ..., "now": ...}

    picture: the new one.
    """

    identical: bool
    differences: Mapping[str, Any]
    picture: Picture


def replay(then: Entry | Picture, draw: Callable[[Picture], Picture]) -> Replay:
    """Have `draw` make a picture again from its request, and compare the two.

    FileError where the file of an entry is gone or damaged; what `draw` raises.
    """
    old = then.picture().amended(request=then.request) if isinstance(then, Entry) else then
    return compared(old, draw(old))


def compared(then: Picture, now: Picture) -> Replay:
    """What is not as it was, of two pictures made from one request."""
    differences: dict[str, Any] = {}
    if then.image.size != now.image.size:
        differences["size"] = {"then": list(then.image.size), "now": list(now.image.size)}
    elif pixels := _pixels(then, now):
        differences["pixels"] = pixels
    identical = not differences
    if fields_apart := _fields(then.request, now.request):
        differences["request"] = fields_apart
    for name in ("model_digest", "version"):
        before, after = getattr(then, name), getattr(now, name)
        if before != after:
            differences[name] = {"then": before, "now": after}
    return Replay(identical=identical, differences=differences, picture=now)


def sentences(differences: Mapping[str, Any]) -> list[str]:
    """The differences for people, pixels first."""
    found = []
    if size := differences.get("size"):
        found.append("it was {}x{} pixels, made again {}x{}".format(*size["then"], *size["now"]))
    if pixels := differences.get("pixels"):
        found.append("{differing} of {of} pixels differ, by at most {most} of 255".format(**pixels))
    for name, pair in differences.get("request", {}).items():
        found.append(f"{name} was {pair['then']!r}, made again with {pair['now']!r}")
    if pair := differences.get("model_digest"):
        found.append(f"the model has changed: {pair['then']} then, {pair['now']} now")
    if pair := differences.get("version"):
        found.append(f"Pictura has changed: {pair['then']} then, {pair['now']} now")
    return found


def _pixels(then: Picture, now: Picture) -> dict[str, int] | None:
    a, b = (np.asarray(picture).astype(np.int16) for picture in (then, now))
    apart = np.abs(a - b).max(axis=-1)
    if not apart.any():
        return None
    return {"differing": int(np.count_nonzero(apart)), "of": apart.size, "most": int(apart.max())}


def _fields(then: Request, now: Request) -> dict[str, Any]:
    before, after = then.to_dict(), now.to_dict()
    return {
        field.name: {"then": before.get(field.name), "now": after.get(field.name)}
        for field in fields(Request)
        if before.get(field.name) != after.get(field.name)
    }
