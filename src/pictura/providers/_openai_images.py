"""The Images API of OpenAI as answers have it, which others speak too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pictura.errors import ProviderError
from pictura.options import Option
from pictura.picture import Picture, Preview
from pictura.providers._bodies import (
    Events,
    entries,
    from_base64,
    members,
    members_of,
    rest_of_answer,
    said,
)
from pictura.providers._calls import Call, Flow, Reply
from pictura.providers._images import decoded
from pictura.providers._sent import IMAGE, MASK, attached, idempotency_key, multipart, options_of
from pictura.providers._service import Found, Service
from pictura.request import Request

__all__ = ["Images", "found_in", "found_in_stream"]

_OPTIONS = (
    IMAGE,
    MASK,
    Option(name="quality", type=str, default=None, help="How much work goes into it, such as high."),
    Option(name="background", type=str, default=None, help="transparent, opaque or auto."),
    Option(name="moderation", type=str, default=None, help="How strict the filter is: auto or low."),
    Option(name="style", type=str, default=None, help="vivid or natural, where the model knows them."),
    Option(name="output_format", type=str, default=None, help="What travels: png, jpeg or webp."),
    Option(name="output_compression", type=int, default=None, help="For jpeg and webp, 0..100."),
    Option(name="partial_images", type=int, default=None, help="Previews to send on the way, 0..3."),
)


class Images(Service):
    """A service with this API. A seed is no part of it, but may be sent where the server is one's own."""

    parameters = frozenset({"size"})
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in _OPTIONS}
    max_seed: ClassVar[int] = 2**63 - 1
    seeded: ClassVar[bool] = False
    previews: ClassVar[bool] = True

    def per_call(self, request: Request) -> int:
        return 10 if request.seed is None and not request.options.get("partial_images") else 1

    def run(self, request: Request, count: int = 1, *, previews: bool = False) -> Flow[list[Picture]]:
        call = self._call(request, count, previews and count == 1)
        answer: object = None
        if call.stream:
            found = yield from found_in_stream(self, call)
        else:
            answer = yield from self.ask_json(call)
            found = found_in(answer)
        return (yield from self.drawn(request, found, count, answer=answer))

    def _call(self, request: Request, count: int, previews: bool) -> Call:
        fields: dict[str, Any] = {"model": self.model} if self.model else {}
        fields["prompt"] = request.prompt
        fields |= options_of(request, "image", "mask", own=self.options)
        if request.size is not None:
            fields["size"] = f"{request.size[0]}x{request.size[1]}"
        if request.seed is not None:
            fields["seed"] = request.seed
        if count > 1:
            fields["n"] = count
        partial = fields.pop("partial_images", 2 if previews else 0)
        stream = bool(partial) and count == 1
        if stream:
            fields |= {"stream": True, "partial_images": partial}
        image = attached(request, "image")
        if image is None:
            where, key = self.place("generations"), idempotency_key()
            return self.call("POST", where, json=fields, headers=key, stream=stream)
        mask = attached(request, "mask")
        files = [("image", image), *([("mask", mask)] if mask is not None else [])]
        content, headers = multipart(fields, files)
        headers |= idempotency_key()
        return self.call("POST", self.place("edits"), content=content, headers=headers, stream=stream)

    def place(self, action: str) -> str:
        """Where to ask for "generations" or "edits"."""
        return f"images/{action}"


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

    ProviderError where the stream ends without a picture. One that was cut is asked for once more, with the
    same idempotency key, unless nothing is to be tried again. A server that does not stream may answer at
    once.
    """
    for last in (service.max_retries == 0, True):
        reply = yield from service.ask(call)
        try:
            return (yield from _completed(service, reply))
        except ProviderError as error:
            if last or not error.again:
                raise
    raise AssertionError("the last try returns or raises")


def _completed(service: Service, reply: Reply) -> Flow[list[Found]]:
    if "json" in reply.headers.get("content-type", ""):
        whole = Reply(reply.status, reply.headers, (yield from rest_of_answer()))
        return found_in(service.json(whole))
    events = Events()
    while (event := (yield from events.next())) is not None:
        if event[1].strip() == "[DONE]":
            break
        body = members_of(event[1])
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
