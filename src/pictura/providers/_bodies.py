"""Bodies of answers: unpacked within limits, taken apart into events and members."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from typing import Any

from pictura.errors import ProviderError
from pictura.providers._calls import Call, Flow, More, Reply

__all__ = [
    "Events",
    "Unpacked",
    "entries",
    "from_base64",
    "members",
    "members_of",
    "said",
    "text_of",
]

_EVENT = 48 << 20  # bytes of one event; a picture of 4 megapixels in base64 stays below it


class Unpacked:
    """The pieces of a body, unpacked if need be, and never more than the call's limit of bytes in all."""

    def __init__(self, headers: Mapping[str, str], call: Call) -> None:
        coding = headers.get("content-encoding", "identity").strip().lower()
        if coding not in ("identity", "", "gzip", "x-gzip", "deflate"):
            raise ProviderError(
                f"{call.place} answered in the coding {coding[:40]!r}, which is not known", again=False
            )
        self._zip = None if coding in ("identity", "") else zlib.decompressobj(47)
        self._left, self._call = call.limit, call
        length = headers.get("content-length", "")
        if self._zip is None and length.isdecimal() and int(length) > call.limit:
            raise self._too_long()

    def add(self, piece: bytes) -> bytes:
        """What `piece` stands for; ProviderError beyond the limit or where it is damaged."""
        if self._zip is not None:
            try:
                piece = self._zip.decompress(piece, self._left + 1)
            except zlib.error:
                raise ProviderError(
                    f"{self._call.place} sent a damaged compressed answer", again=self._call.repeatable
                ) from None
        self._left -= len(piece)
        if self._left < 0:
            raise self._too_long()
        return piece

    def _too_long(self) -> ProviderError:
        limit, place = self._call.limit, self._call.place
        size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit} bytes"
        return ProviderError(f"{place} answered with more than {size}, which is refused", again=False)


class Events:
    """Server-sent events (HTML living standard, 9.2) of the streamed answer that a flow has just got."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._searched = 0
        self.last = ""  # the id of the last one that had one: from where to go on after a lost connection

    @property
    def here(self) -> bool:
        """Whether a next one has come already."""
        return b"\n\n" in self._text and not self._text.startswith(b":")

    def next(self) -> Flow[tuple[str, str] | None]:
        """(event, data) of the next one, None when the stream has ended."""
        while True:
            at = self._text.find(b"\n\n", self._searched)
            if at >= 0:
                block = bytes(self._text[:at])
                del self._text[: at + 2]
                self._searched = 0
                if (event := self._event(block)) is not None:
                    return event
                continue
            self._searched = max(0, len(self._text) - 1)
            if len(self._text) > _EVENT:
                raise ProviderError("the service sent an event that is too long", again=False)
            reply: Reply = yield More()
            if not reply.content:
                last, self._text = bytes(self._text), bytearray()
                return self._event(last)
            self._text += reply.content.replace(b"\r\n", b"\n")

    def _event(self, block: bytes) -> tuple[str, str] | None:
        kind, data = "message", []
        for line in block.decode("utf-8", "replace").split("\n"):
            name, _, value = line.rstrip("\r").partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                self.last = value
        return (kind, "\n".join(data)) if data else None


def from_base64(text: object) -> bytes:
    """The bytes of base64 text or of a data address; ProviderError for anything else."""
    if isinstance(text, str):
        if text.startswith("data:"):
            text = text.partition(",")[2]
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
        try:  # line ends and the other alphabet occur
            plain = "".join(text.split()).replace("-", "+").replace("_", "/")
            return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            pass
    raise ProviderError("damaged base64 in place of a picture")


def members(value: object) -> Mapping[str, Any]:
    """A JSON object as a mapping; of anything else, an empty one."""
    return value if isinstance(value, dict) else {}


def members_of(text: str) -> Mapping[str, Any]:
    """The members of a JSON object in `text`; where there is none, an empty mapping."""
    try:
        return members(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def entries(value: object) -> list[Any]:
    """A JSON array; of anything else, an empty one."""
    return value if isinstance(value, list) else []


def text_of(reply: Reply) -> str:
    """What a service says in an answer that is no success, in the forms that services have for it."""
    try:
        body = json.loads(reply.content)
    except (ValueError, RecursionError):
        text = reply.content[:300].decode("utf-8", "replace").strip()
        return "" if text.startswith("<") else text
    return said(body)


def said(body: object, depth: int = 0) -> str:
    """The message in a JSON error, in the forms that services have for it: {"error": {"message": ...}},
    {"error": "..."}, {"detail": [{"loc", "msg"}]}, {"errors": [...]}, {"title": ...}.
    """
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, (said(entry, depth + 1) for entry in body[:3])))
    if not isinstance(body, dict) or depth > 5:
        return ""
    found = members(body)
    for name in ("error", "message", "msg", "detail", "errors", "title", "reason", "name"):
        if text := said(found.get(name), depth + 1):
            place = entries(found.get("loc"))
            return f"{'.'.join(map(str, place))}: {text}" if place and name == "msg" else text
    return ""


def rest_of_answer() -> Flow[bytes]:
    """What is left of a streamed answer."""
    pieces: list[bytes] = []
    while True:
        reply: Reply = yield More()
        if not reply.content:
            return b"".join(pieces)
        pieces.append(reply.content)
