"""openai://MODEL: OpenAI's Images API, and every server that speaks it.

    POST {base}/images/generations    JSON
    POST {base}/images/edits          a form, with the picture to start from

Pictures come as base64 or as addresses. A seed is no part of the API; servers of one's own are sent it as a
further field. https://platform.openai.com/docs/api-reference/images
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pictura.errors import ParameterError, ProviderError
from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._calls import Call, Flow
from pictura.providers._openai_images import found_in, found_in_stream
from pictura.providers._sent import IMAGE, MASK, attached, idempotency_key, multipart, options_of
from pictura.providers._service import Found, Service
from pictura.request import Request

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


class OpenAI(Service):
    name: ClassVar[str] = "openai"
    title: ClassVar[str] = "OpenAI"
    parameters = frozenset({"size"})
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in _OPTIONS}
    base: ClassVar[str] = "https://api.openai.com/v1"
    keys: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    max_seed: ClassVar[int] = 2**63 - 1
    seeded: ClassVar[bool] = False
    previews: ClassVar[bool] = True

    def __init__(self, model: str = "", **settings: Any) -> None:
        super().__init__(model, **settings)
        if not self.own:
            self.parameters = frozenset({"size", "seed"})

    def headers(self) -> dict[str, str]:
        names = {"OPENAI_ORG_ID": "openai-organization", "OPENAI_PROJECT_ID": "openai-project"}
        more = {header: os.environ.get(name, "") for name, header in names.items() if self.own}
        return super().headers() | {header: value for header, value in more.items() if value}

    def check(self, request: Request) -> None:
        super().check(request)
        if "mask" in request.options and "image" not in request.options:
            raise ParameterError("mask says what of a picture may change; give image too", parameter="mask")

    def per_call(self, request: Request) -> int:
        return 10 if request.seed is None and not request.options.get("partial_images") else 1

    def run(self, request: Request, count: int = 1, *, previews: bool = False) -> Flow[list[Picture]]:
        call = self._call(request, count, previews and count == 1)
        found: list[Found] | None = None
        if call.stream:
            try:
                found = yield from found_in_stream(self, call)
            except ProviderError as error:
                if not error.again or error.status is not None:
                    raise
                call = self._call(request, count, False)  # the stream was cut: ask for the whole
        if found is None:
            found = found_in((yield from self.ask_json(call)))
        return (yield from self.drawn(request, found))

    def _call(self, request: Request, count: int, previews: bool) -> Call:
        fields: dict[str, Any] = {"model": self.model} if self.model else {}
        fields["prompt"] = request.prompt
        fields |= options_of(request, "image", "mask")
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
            call = self.call("POST", "images/generations", json=fields, headers=idempotency_key())
        else:
            mask = attached(request, "mask")
            files = [("image", image), *([("mask", mask)] if mask is not None else [])]
            content, headers = multipart(fields, files)
            headers |= idempotency_key()
            call = self.call("POST", "images/edits", content=content, headers=headers)
        return replace(call, stream=stream)


PROVIDER = OpenAI
