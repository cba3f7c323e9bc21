"""fal://fal-ai/flux/dev: models on fal.

    POST {base}/{model}    flat JSON, answered with the addresses to ask at
    GET  status_url        until COMPLETED
    GET  response_url      the pictures

A base_url of https://fal.run answers with the pictures at once. https://docs.fal.ai
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._bodies import entries, members
from pictura.providers._calls import Flow, Undo
from pictura.providers._sent import IMAGE, MASK, data_address, options_of
from pictura.providers._service import Found, Service
from pictura.request import Request

_OPTIONS = (
    IMAGE,
    MASK,
    Option(name="strength", type=float, default=None, help="How far to leave the picture, 0..1."),
)


class Fal(Service):
    name: ClassVar[str] = "fal"
    title: ClassVar[str] = "fal"
    parameters = frozenset({"size", "seed", "num_steps", "guidance_scale", "negative_prompt"})
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in _OPTIONS}
    base: ClassVar[str] = "https://queue.fal.run"
    keys: ClassVar[tuple[str, ...]] = ("FAL_KEY",)
    siblings: ClassVar[tuple[str, ...]] = ("fal.run",)

    def headers(self) -> dict[str, str]:
        return {} if self._key is None else {"authorization": f"Key {self._key.reveal()}"}

    def run(self, request: Request) -> Flow[list[Picture]]:
        answer = yield from self.ask_json(self.call("POST", self.model, json=self._body(request)))
        status_url, response_url = answer.get("status_url"), answer.get("response_url")
        if "images" not in answer and status_url and response_url:
            if cancel := answer.get("cancel_url"):
                yield Undo(self.call("PUT", str(cancel)))
            status = self.call("GET", str(status_url))
            yield from self.follow(status, lambda body: body.get("status") not in ("IN_QUEUE", "IN_PROGRESS"))
            answer = yield from self.ask_json(self.call("GET", str(response_url)), paid=True)
        return (yield from self.drawn(request, _found(answer), answer=answer))

    def _body(self, request: Request) -> dict[str, Any]:
        width, height = request.size or (None, None)
        fields = {
            "image_size": {"width": width, "height": height} if request.size else None,
            "seed": request.seed,
            "num_inference_steps": request.num_steps,
            "guidance_scale": request.guidance_scale,
            "negative_prompt": request.negative_prompt,
            "image_url": data_address(request, "image"),
            "mask_url": data_address(request, "mask"),
        }
        known = {name: value for name, value in fields.items() if value is not None}
        return {"prompt": request.prompt, **known, **options_of(request, "image", "mask")}


def _found(answer: Mapping[str, Any]) -> list[Found]:
    unsafe = entries(answer.get("has_nsfw_concepts"))
    return [
        Found(
            url=members(entry).get("url"),
            seed=answer.get("seed"),
            notes=["the service found it unsafe"] if index < len(unsafe) and unsafe[index] is True else [],
        )
        for index, entry in enumerate(entries(answer.get("images")))
    ]


PROVIDER = Fal
