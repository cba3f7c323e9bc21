"""stability://core, ultra, sd3.5-large, ...: Stability AI.

    POST {base}/v2beta/stable-image/generate/{core, ultra, sd3}    a form

A name that begins with "sd3" is a model of the path sd3; "PATH/MODEL" says both.
https://platform.stability.ai/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._calls import Flow
from pictura.providers._sent import IMAGE, attached, multipart, options_of
from pictura.providers._service import Found, Service
from pictura.providers._settings import ratio
from pictura.request import Request

_OPTIONS = (
    IMAGE,
    Option(name="strength", type=float, default=None, help="How far to leave the picture, 0..1."),
    Option(name="aspect_ratio", type=str, default=None, help="Such as 16:9; a size gives its own."),
    Option(name="style_preset", type=str, default=None, help="Such as pixel-art, where there are styles."),
    Option(name="output_format", type=str, default=None, help="What travels: png, jpeg or webp."),
)


class Stability(Service):
    name: ClassVar[str] = "stability"
    title: ClassVar[str] = "Stability AI"
    parameters = frozenset({"size", "seed", "negative_prompt", "guidance_scale"})
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in _OPTIONS}
    base: ClassVar[str] = "https://api.stability.ai"
    keys: ClassVar[tuple[str, ...]] = ("STABILITY_API_KEY",)
    max_seed: ClassVar[int] = 4294967294

    def run(self, request: Request) -> Flow[list[Picture]]:
        path, slash, model = self.model.partition("/")
        if not slash and path.startswith("sd3"):
            path, model = "sd3", path if path != "sd3" else ""
        fields: dict[str, Any] = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt or None,
            "seed": request.seed,
            "cfg_scale": request.guidance_scale,
            "model": model or None,
        }
        image = attached(request, "image")
        if image is not None:
            fields["mode"] = "image-to-image"
        elif request.size is not None:
            fields["aspect_ratio"] = ratio(request.size)
        fields |= options_of(request, "image")
        content, headers = multipart(
            {name: value for name, value in fields.items() if value is not None},
            [] if image is None else [("image", image)],
        )
        where = f"v2beta/stable-image/generate/{path}"
        answer = yield from self.ask_json(self.call("POST", where, content=content, headers=headers))
        finished = answer.get("finish_reason", "SUCCESS")
        reason = None if finished == "SUCCESS" else str(finished)
        drawing = answer.get("image")
        found = [Found(content=drawing, seed=answer.get("seed"), reason=reason)] if drawing or reason else []
        return (yield from self.drawn(request, found, answer=answer))


PROVIDER = Stability
