"""hf-inference://ORG/MODEL: Hugging Face's inference, its routed providers, and endpoints of one's own.

    POST {base}/hf-inference/models/{model}  {"inputs": prompt, "parameters": {...}}, answered with a picture
    POST {endpoint}                          the same for a base_url of one's own, to which nothing is added
    POST {base}/{provider}/...               provider="fal-ai" and others, in that service's own form

Which model of a routed provider a name stands for is asked of the hub, once, unless provider_model says it.
https://huggingface.co/docs/inference-providers
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from pictura.errors import ParameterError, did_you_mean, shown
from pictura.options import Option
from pictura.picture import Picture
from pictura.providers import _hf_routes as routes
from pictura.providers._bodies import members
from pictura.providers._calls import Flow
from pictura.providers._sent import options_of
from pictura.providers._service import Found, Service
from pictura.request import Request

_HUB = "https://huggingface.co"


class HuggingFace(Service):
    name: ClassVar[str] = "huggingface"
    title: ClassVar[str] = "Hugging Face"
    parameters = frozenset({"size", "seed", "num_steps", "guidance_scale", "negative_prompt"})
    options: ClassVar[Mapping[str, Option]] = {
        "scheduler": Option(name="scheduler", type=str, default=None, help="As the model's library calls it.")
    }
    base: ClassVar[str] = "https://router.huggingface.co"
    keys: ClassVar[tuple[str, ...]] = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
    needs_model: ClassVar[bool] = False  # an endpoint has one
    siblings: ClassVar[tuple[str, ...]] = ("huggingface.co",)  # which knows private models

    def __init__(
        self, model: str = "", *, provider: str | None = None, provider_model: str = "", **settings: Any
    ) -> None:
        super().__init__(model, **settings)
        if provider is not None and provider not in routes.ROUTES:
            raise ParameterError(
                f"provider {shown(provider)} is unknown; {did_you_mean(str(provider), routes.ROUTES)}",
                parameter="provider",
            )
        if not model and (self.own or provider is not None):
            raise ParameterError("there is no model; give hf-inference://ORG/MODEL", parameter="model")
        self.provider, self._mapped = provider, provider_model
        self._hub = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")

    def run(self, request: Request) -> Flow[list[Picture]]:
        if self.provider is not None:
            return (yield from self._routed(request, routes.ROUTES[self.provider]))
        where = f"hf-inference/models/{self.model}" if self.own else self.base_url
        body = {"inputs": request.prompt, "parameters": self._fields(request)}
        call = self.call("POST", where, json=body, headers={"accept": "image/png"})
        reply = yield from self.ask(call)
        return (yield from self.drawn(request, [Found(content=reply.content)]))

    def _fields(self, request: Request) -> dict[str, Any]:
        width, height = request.size or (None, None)
        fields = {
            "negative_prompt": request.negative_prompt,
            "height": height,
            "width": width,
            "num_inference_steps": request.num_steps,
            "guidance_scale": request.guidance_scale,
            "seed": request.seed,
        }
        return {name: value for name, value in fields.items() if value is not None} | options_of(request)

    def _routed(self, request: Request, route: routes.Route) -> Flow[list[Picture]]:
        if not self._mapped:
            self._mapped = yield from self._mapping()
        path, body = route.ask(self._mapped, request.prompt, self._fields(request))
        call = self.call("POST", f"{self.provider}{path}", json=body, headers=dict(route.headers))
        answer = yield from self.ask_json(call)
        if route.follow is not None and (later := route.follow(answer)) is not None:
            poll = self.call("GET", f"{self.provider}{later}", headers=dict(route.headers))
            answer = yield from self.follow(poll, lambda body: route.done(body))
        return (yield from self.drawn(request, route.read(answer), answer=answer))

    def _mapping(self) -> Flow[str]:
        """What the provider calls the model."""
        url = f"{self._hub}/api/models/{self.model}?expand=inferenceProviderMapping"
        answer = yield from self.ask_json(self.call("GET", url, public=False))
        found = members(members(answer.get("inferenceProviderMapping")).get(str(self.provider)))
        name = found.get("providerId")
        if not isinstance(name, str) or found.get("task") not in (None, "text-to-image"):
            raise self.error(f"does not offer {self.model} for pictures with {self.provider}", 404)
        return name


PROVIDER = HuggingFace
