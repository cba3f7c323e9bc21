"""bedrock://MODEL: image models on Amazon Bedrock.

    POST {base}/model/{model}/invoke    in the form of Amazon's or of Stability's models

The key is "ACCESS_KEY_ID:SECRET_ACCESS_KEY", with ":SESSION_TOKEN" where there is one, or an API key of
Bedrock; from the environment AWS_BEARER_TOKEN_BEDROCK, or AWS_ACCESS_KEY_ID and its fellows. Names with
"amazon." in them are asked in Amazon's form, others in Stability's; form= says it otherwise.
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import quote

from pictura.errors import ParameterError, shown
from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._bodies import entries
from pictura.providers._calls import Call, Flow
from pictura.providers._sent import options_of
from pictura.providers._service import Found, Service
from pictura.providers._settings import ratio
from pictura.providers._sigv4 import signed
from pictura.request import Request

_PARTS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_SEEDS = {"amazon": 858_993_459, "stability": 4_294_967_294}


class Bedrock(Service):
    name: ClassVar[str] = "bedrock"
    title: ClassVar[str] = "Amazon Bedrock"
    parameters = frozenset({"size", "seed", "negative_prompt", "guidance_scale"})
    options: ClassVar[Mapping[str, Option]] = {
        "quality": Option(name="quality", type=str, default=None, help="standard or premium."),
    }
    keys: ClassVar[tuple[str, ...]] = ("AWS_BEARER_TOKEN_BEDROCK",)

    def __init__(
        self,
        model: str = "",
        *,
        region: str | None = None,
        form: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        **settings: Any,
    ) -> None:
        self.region = (
            region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        )
        if not self.region.replace("-", "").isalnum():
            raise ParameterError(f"region is {shown(region)}; give one such as us-east-1", parameter="region")
        place = os.environ.get("AWS_ENDPOINT_URL_BEDROCK_RUNTIME")
        place = place or f"https://bedrock-runtime.{self.region}.amazonaws.com"
        parts = [value for name in _PARTS if (value := os.environ.get(name))]
        if api_key is None and not os.environ.get(self.keys[0]) and len(parts) > 1:
            api_key = ":".join(parts)
        super().__init__(model, base_url=base_url or place, api_key=api_key, **settings)
        self.own = base_url is None
        if self._key is None and self.own:
            raise ParameterError(
                f"{self.title} needs a key; give api_key or set {_PARTS[0]} and {_PARTS[1]}",
                parameter="api_key",
            )
        self.form = form or ("amazon" if "amazon." in model else "stability")
        if self.form not in _SEEDS:
            raise ParameterError(f"form is {shown(form)}; choose amazon or stability", parameter="form")
        self.max_seed = _SEEDS[self.form]  # type: ignore[misc]  # of this model, not of the service

    def headers(self) -> dict[str, str]:
        return {} if self._key is None or ":" in self._key.reveal() else super().headers()

    def run(self, request: Request) -> Flow[list[Picture]]:
        body = self._amazon(request) if self.form == "amazon" else self._stability(request)
        content = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        call = self.call(
            "POST", f"model/{quote(self.model, safe='')}/invoke", content=content, headers=headers
        )
        answer = yield from self.ask_json(self._signed(call))
        images, seeds = entries(answer.get("images")), entries(answer.get("seeds"))
        reasons = entries(answer.get("finish_reasons"))
        found = [
            Found(
                content=image,
                seed=seeds[index] if index < len(seeds) else None,
                reason=reasons[index] if index < len(reasons) else None,
            )
            for index, image in enumerate(images or [None] * len(reasons))
        ]
        return (yield from self.drawn(request, found, answer=answer))

    def _signed(self, call: Call) -> Call:
        if self._key is None or ":" not in self._key.reveal():
            return call
        access, secret, *token = self._key.reveal().split(":", 2)
        return signed(
            call,
            access=access,
            secret=secret,
            token=token[0] if token else None,
            region=self.region,
            service="bedrock",
            now=datetime.now(UTC),
        )

    def _amazon(self, request: Request) -> dict[str, Any]:
        words = {"text": request.prompt, "negativeText": request.negative_prompt or None}
        width, height = request.size or (None, None)
        config = {
            "numberOfImages": 1,
            "width": width,
            "height": height,
            "cfgScale": request.guidance_scale,
            "seed": request.seed,
            **options_of(request),
        }
        return {
            "taskType": "TEXT_IMAGE",
            "textToImageParams": {name: value for name, value in words.items() if value is not None},
            "imageGenerationConfig": {name: value for name, value in config.items() if value is not None},
        }

    def _stability(self, request: Request) -> dict[str, Any]:
        fields = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt or None,
            "aspect_ratio": None if request.size is None else ratio(request.size),
            "seed": request.seed,
            "cfg_scale": request.guidance_scale,
            **options_of(request),
        }
        return {name: value for name, value in fields.items() if value is not None}


PROVIDER = Bedrock
