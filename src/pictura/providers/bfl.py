"""bfl://MODEL: Black Forest Labs.

    POST {base}/v1/{model}    answered with the address to ask at
    GET  polling_url          until it is Ready, or moderated

A picture that was moderated away is answered with success and no picture. https://docs.bfl.ai
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._bodies import members, said
from pictura.providers._calls import Flow
from pictura.providers._sent import IMAGE, MASK, attached, options_of
from pictura.providers._service import Found, Service
from pictura.request import Request

_PENDING = ("Pending", "Queued", "Processing", "Task not found")  # not found yet, where it was just accepted


class BFL(Service):
    name: ClassVar[str] = "bfl"
    title: ClassVar[str] = "Black Forest Labs"
    parameters = frozenset({"size", "seed", "num_steps", "guidance_scale"})
    options: ClassVar[Mapping[str, Option]] = {"image": IMAGE, "mask": MASK}
    base: ClassVar[str] = "https://api.bfl.ai"
    keys: ClassVar[tuple[str, ...]] = ("BFL_API_KEY",)
    siblings: ClassVar[tuple[str, ...]] = ("bfl.ai",)

    def headers(self) -> dict[str, str]:
        return {} if self._key is None else {"x-key": self._key.reveal()}

    def run(self, request: Request) -> Flow[list[Picture]]:
        call = self.call("POST", f"v1/{quote(self.model)}", json=self._body(request))
        task = yield from self.ask_json(call)
        where = task.get("polling_url") or f"v1/get_result?id={quote(str(task.get('id')))}"
        answer = yield from self.follow(
            self.call("GET", str(where)), lambda body: body.get("status") not in _PENDING
        )
        result, status = members(answer.get("result")), answer.get("status")
        reason = None if status == "Ready" else ": ".join(filter(None, (str(status or ""), said(answer))))
        found = [Found(url=result.get("sample"), seed=result.get("seed"), reason=reason or None)]
        return (yield from self.drawn(request, found if reason or result else [], answer=answer))

    def _body(self, request: Request) -> dict[str, Any]:
        width, height = request.size or (None, None)
        pictures = {self._start(request): attached(request, "image"), "mask": attached(request, "mask")}
        fields = {
            "width": width,
            "height": height,
            "seed": request.seed,
            "steps": request.num_steps,
            "guidance": request.guidance_scale,
            **{name: base64.b64encode(found).decode() for name, found in pictures.items() if found},
        }
        known = {name: value for name, value in fields.items() if value is not None}
        return {"prompt": request.prompt, **known, **options_of(request, "image", "mask")}

    def _start(self, request: Request) -> str:
        """What the model calls the picture to start from."""
        if "mask" in request.options:
            return "image"
        edits = "kontext" in self.model or self.model.startswith("flux-2")
        return "input_image" if edits else "image_prompt"


PROVIDER = BFL
