"""The Images API of OpenAI as answers have it, which others speak too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pictura.errors import ProviderError
from pictura.picture import Preview
from pictura.providers._bodies import Events, decoded, entries, from_base64, members, rest_of_answer, said
from pictura.providers._calls import Call, Flow, Reply
from pictura.providers._service import Found, Service

__all__ = ["found_in", "found_in_stream"]


def found_in(body: object) -> list[Found]:
    """The pictures of {"data": [{"b64_json"} or {"url"}, ...]}; whatever else an entry has may be missing."""
    return [_found(members(entry)) for entry in entries(members(body).get("data"))]


def _found(entry: Mapping[str, Any]) -> Found:
    revised = entry.get("revised_prompt")
    return Found(
        content=entry.get("b64_json") or None,
        url=entry.get("url"),
        seed=entry.get("seed"),
        notes=[f"revised prompt: {revised}"] if isinstance(revised, str) and revised else [],
    )


def found_in_stream(service: Service, call: Call) -> Flow[list[Found]]:
    """The picture of a streamed answer; each partial one is told as a Preview.

    ProviderError where the stream ends without a picture. A server that does not stream may answer at once.
    """
    reply: Reply = yield from service.ask(call)
    if "json" in reply.headers.get("content-type", ""):
        whole = Reply(reply.status, reply.headers, (yield from rest_of_answer()))
        return found_in(service.json(whole))
    events = Events()
    while (event := (yield from events.next())) is not None:
        if event[1].strip() == "[DONE]":
            break
        body = _object(event[1])
        kind = str(body.get("type", event[0]))
        if kind.endswith(".partial_image"):
            yield from _preview(service, body)
        elif kind.endswith(".completed"):
            return [_found(body)]
        elif kind == "error" or "error" in body:
            raise service.error(f"stopped: {said(body)}", again=False)
    raise service.error("ended its answer before the picture was there")


def _preview(service: Service, body: Mapping[str, Any]) -> Flow[None]:
    try:
        image = decoded(from_base64(body.get("b64_json")))
    except ProviderError:
        return  # the picture itself may still come
    index = body.get("partial_image_index")
    step = index + 1 if isinstance(index, int) else 1
    yield Preview(index=0, step=step, total=None, image=image)


def _object(text: str) -> Mapping[str, Any]:
    try:
        return members(json.loads(text))
    except (ValueError, RecursionError):
        return {}
