"""google://MODEL: Imagen and Gemini's image models.

    POST {base}/models/{model}:predict            Imagen
    POST {base}/models/{model}:generateContent    Gemini, which may answer with words too

Names that begin with "imagen" are asked the first way, others the second; method= says it otherwise. Pictures
that were filtered are missing from the answer. https://ai.google.dev/gemini-api/docs/image-generation
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from pictura.errors import ParameterError, shown
from pictura.options import Option
from pictura.picture import Picture
from pictura.providers._bodies import entries, members
from pictura.providers._calls import Flow
from pictura.providers._sent import IMAGE, attached, options_of
from pictura.providers._service import Found, Service
from pictura.providers._settings import ratio
from pictura.request import Request

_METHODS = ("predict", "generateContent")


class Google(Service):
    name: ClassVar[str] = "google"
    title: ClassVar[str] = "Google"
    parameters = frozenset({"size"})
    options: ClassVar[Mapping[str, Option]] = {
        "image": IMAGE,
        "aspect_ratio": Option(
            name="aspect_ratio", type=str, default=None, help="Such as 16:9; a size gives its own."
        ),
    }
    base: ClassVar[str] = "https://generativelanguage.googleapis.com/v1beta"
    keys: ClassVar[tuple[str, ...]] = ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    seeded: ClassVar[bool] = False

    def __init__(self, model: str = "", *, method: str | None = None, **settings: Any) -> None:
        super().__init__(model, **settings)
        self.method = method or ("predict" if model.startswith("imagen") else "generateContent")
        if self.method not in _METHODS:
            raise ParameterError(
                f"method is {shown(method)}; choose one of {', '.join(_METHODS)}", parameter="method"
            )

    def headers(self) -> dict[str, str]:
        return {} if self._key is None else {"x-goog-api-key": self._key.reveal()}

    def check(self, request: Request) -> None:
        super().check(request)
        if self.method == "predict" and "image" in request.options:
            raise ParameterError(
                "image is given, and Imagen starts from none; leave it out", parameter="image"
            )

    def per_call(self, request: Request) -> int:
        return 4 if self.method == "predict" else 1

    def run(self, request: Request, count: int = 1) -> Flow[list[Picture]]:
        aspect = request.options.get("aspect_ratio") or (ratio(request.size) if request.size else None)
        more = options_of(request, "image", "aspect_ratio")
        body = self._words(request, aspect, more)
        if self.method == "predict":
            shape = {} if aspect is None else {"aspectRatio": aspect}
            parameters = {"sampleCount": count, **shape, **more}
            body = {"instances": [{"prompt": request.prompt}], "parameters": parameters}
        where = f"models/{quote(self.model)}:{self.method}"
        answer = yield from self.ask_json(self.call("POST", where, json=body))
        found = _predicted(answer) if self.method == "predict" else _generated(answer)
        return (yield from self.drawn(request, found, count, answer=answer))

    def _words(self, request: Request, aspect: str | None, more: Mapping[str, Any]) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"text": request.prompt}]
        if (image := attached(request, "image")) is not None:
            data = base64.b64encode(image).decode()
            parts.append({"inlineData": {"mimeType": "image/png", "data": data}})
        config: dict[str, Any] = {"responseModalities": ["IMAGE"], **more}
        if aspect is not None:
            config["imageConfig"] = {**members(config.get("imageConfig")), "aspectRatio": aspect}
        return {"contents": [{"parts": parts, "role": "user"}], "generationConfig": config}


def _predicted(answer: Mapping[str, Any]) -> list[Found]:
    return [
        Found(content=entry.get("bytesBase64Encoded"), reason=entry.get("raiFilteredReason"))
        for entry in map(members, entries(answer.get("predictions")))
    ]


def _generated(answer: Mapping[str, Any]) -> list[Found]:
    """The pictures among the parts; without any, why there are none."""
    candidates = [members(entry) for entry in entries(answer.get("candidates"))]
    parts = [
        members(part)
        for candidate in candidates
        for part in entries(members(candidate.get("content")).get("parts"))
    ]
    words = [str(part["text"]) for part in parts if part.get("text")]
    found = [members(part.get("inlineData") or part.get("inline_data")) for part in parts]
    pictures = [Found(content=entry["data"], notes=words) for entry in found if entry.get("data")]
    if pictures:
        return pictures
    blocked = members(answer.get("promptFeedback")).get("blockReason")
    ended = candidates[0].get("finishReason") if candidates else None
    return [Found(reason=" ".join([str(blocked or ended or "no reason given"), *words]))]


PROVIDER = Google
