"""replicate://OWNER/NAME, or OWNER/NAME:VERSION: models on Replicate.

    POST {base}/models/{owner}/{name}/predictions    {"input": {...}}, waiting for up to a minute
    POST {base}/predictions                          with a version
    GET  urls.get                                    until it succeeded, failed or was canceled

Each model has inputs of its own: options are sent as they are, and sizes as width and height.
https://replicate.com/docs/reference/http
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._bodies import members, said
from pictura.providers._calls import Flow, Undo
from pictura.providers._sent import IMAGE, MASK, data_address, options_of
from pictura.providers._service import Found, Service
from pictura.request import Request

_PENDING = ("starting", "processing", "queued")


class Replicate(Service):
    name: ClassVar[str] = "replicate"
    title: ClassVar[str] = "Replicate"
    parameters = frozenset({"size", "seed", "num_steps", "guidance_scale", "negative_prompt"})
    options: ClassVar[Mapping[str, Option]] = {"image": IMAGE, "mask": MASK}
    base: ClassVar[str] = "https://api.replicate.com/v1"
    keys: ClassVar[tuple[str, ...]] = ("REPLICATE_API_TOKEN",)
    max_seed: ClassVar[int] = 2**31 - 1

    def run(self, request: Request) -> Flow[list[Picture]]:
        model, colon, version = self.model.partition(":")
        body: dict[str, Any] = {"input": self._input(request)}
        if colon:
            body["version"] = version
        where = "predictions" if colon else f"models/{quote(model)}/predictions"
        call = self.call("POST", where, json=body, headers={"prefer": "wait"})
        prediction = yield from self.ask_json(call)
        urls = members(prediction.get("urls"))
        if prediction.get("status") in _PENDING:
            if cancel := urls.get("cancel"):
                yield Undo(self.call("POST", str(cancel)))
            again = urls.get("get") or f"predictions/{prediction.get('id')}"
            prediction = yield from self.follow(
                self.call("GET", str(again)), lambda body: body.get("status") not in _PENDING
            )
        output, status = prediction.get("output"), prediction.get("status")
        if status in ("failed", "canceled", "aborted"):
            raise self.error(f"{status}: {said(prediction.get('error')) or 'no reason given'}")
        found = output if isinstance(output, list) else [output] if output else []
        return (yield from self.drawn(request, [Found(url=url) for url in found], answer=prediction))

    def _input(self, request: Request) -> dict[str, Any]:
        width, height = request.size or (None, None)
        fields = {
            "width": width,
            "height": height,
            "seed": request.seed,
            "num_inference_steps": request.num_steps,
            "guidance_scale": request.guidance_scale,
            "negative_prompt": request.negative_prompt,
            "image": data_address(request, "image"),
            "mask": data_address(request, "mask"),
        }
        known = {name: value for name, value in fields.items() if value is not None}
        return {"prompt": request.prompt, **known, **options_of(request, "image", "mask")}


PROVIDER = Replicate
