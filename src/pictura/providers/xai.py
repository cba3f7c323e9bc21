"""xai://MODEL: xAI's image models.

    POST {base}/images/generations    as OpenAI's, with aspect_ratio in place of a size

https://docs.x.ai/docs/guides/image-generations
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._calls import Flow
from pictura.providers._openai_images import found_in
from pictura.providers._sent import options_of
from pictura.providers._service import Service
from pictura.providers._settings import ratio
from pictura.request import Request

_OPTIONS = (
    Option(name="aspect_ratio", type=str, default=None, help="Such as 16:9; a size gives its own."),
    Option(name="resolution", type=str, default=None, help="1k or 2k."),
)


class XAI(Service):
    name: ClassVar[str] = "xai"
    title: ClassVar[str] = "xAI"
    parameters = frozenset({"size"})
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in _OPTIONS}
    base: ClassVar[str] = "https://api.x.ai/v1"
    keys: ClassVar[tuple[str, ...]] = ("XAI_API_KEY",)
    seeded: ClassVar[bool] = False

    def per_call(self, request: Request) -> int:
        return 10

    def run(self, request: Request, count: int = 1) -> Flow[list[Picture]]:
        body: dict[str, Any] = {"model": self.model, "prompt": request.prompt, "response_format": "b64_json"}
        if count > 1:
            body["n"] = count
        if request.size is not None:
            body["aspect_ratio"] = ratio(request.size)
        body |= options_of(request)
        answer = yield from self.ask_json(self.call("POST", "images/generations", json=body))
        return (yield from self.drawn(request, found_in(answer), count, answer=answer))


PROVIDER = XAI
