"""together://MODEL: Together AI.

    POST {base}/images/generations    {"model", "prompt", "width", "height", "steps", "seed", ...}

https://docs.together.ai/reference/post-images-generations
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._calls import Flow
from pictura.providers._openai_images import found_in
from pictura.providers._sent import IMAGE, data_address, options_of
from pictura.providers._service import Service
from pictura.request import Request


class Together(Service):
    name: ClassVar[str] = "together"
    title: ClassVar[str] = "Together AI"
    parameters = frozenset({"size", "seed", "num_steps", "guidance_scale", "negative_prompt"})
    options: ClassVar[Mapping[str, Option]] = {"image": IMAGE}
    base: ClassVar[str] = "https://api.together.xyz/v1"
    keys: ClassVar[tuple[str, ...]] = ("TOGETHER_API_KEY",)

    def run(self, request: Request) -> Flow[list[Picture]]:
        width, height = request.size or (None, None)
        fields: dict[str, Any] = {
            "width": width,
            "height": height,
            "steps": request.num_steps,
            "seed": request.seed,
            "guidance_scale": request.guidance_scale,
            "negative_prompt": request.negative_prompt,
            "image_url": data_address(request, "image"),
        }
        body = {"model": self.model, "prompt": request.prompt, "response_format": "base64"}
        body |= {name: value for name, value in fields.items() if value is not None}
        body |= options_of(request, "image")
        answer = yield from self.ask_json(self.call("POST", "images/generations", json=body))
        return (yield from self.drawn(request, found_in(answer), answer=answer))


PROVIDER = Together
