"""How Hugging Face's router passes pictures on: for each provider its path, body and answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pictura.providers._bodies import entries, members, said
from pictura.providers._openai_images import found_in
from pictura.providers._service import Found

__all__ = ["ROUTES", "Route"]

Fields = dict[str, Any]
Answer = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Route:
    """ask: (model, prompt, fields) -> (path, body). follow: the path to ask again at, if there is need to.

    read: the pictures of the last answer.
    """

    ask: Callable[[str, str, Fields], tuple[str, Fields]]
    read: Callable[[Answer], list[Found]]
    follow: Callable[[Answer], str | None] | None = None
    done: Callable[[Answer], bool] = bool
    headers: Mapping[str, str] = field(default_factory=dict)


def _fal(model: str, prompt: str, fields: Fields) -> tuple[str, Fields]:
    return f"/{model}", {
        "prompt": prompt,
        **_sized(fields, "image_size", lambda w, h: {"width": w, "height": h}),
    }


def _replicate(model: str, prompt: str, fields: Fields) -> tuple[str, Fields]:
    body: Fields = {"input": {"prompt": prompt, **fields}}
    name, colon, version = model.partition(":")
    return (
        ("/v1/predictions", {**body, "version": version})
        if colon
        else (f"/v1/models/{name}/predictions", body)
    )


def _together(model: str, prompt: str, fields: Fields) -> tuple[str, Fields]:
    renamed = {"steps" if name == "num_inference_steps" else name: value for name, value in fields.items()}
    return "/v1/images/generations", {
        "prompt": prompt, "response_format": "base64", **renamed, "model": model
    }  # fmt: skip


def _nscale(model: str, prompt: str, fields: Fields) -> tuple[str, Fields]:
    sized = _sized(fields, "size", lambda w, h: f"{w}x{h}")
    return "/v1/images/generations", {
        "response_format": "b64_json", "prompt": prompt, "model": model, **sized
    }  # fmt: skip


def _wavespeed(model: str, prompt: str, fields: Fields) -> tuple[str, Fields]:
    return f"/api/v3/{model}", {"prompt": prompt, **fields}


def _zai(model: str, prompt: str, fields: Fields) -> tuple[str, Fields]:
    sized = _sized(fields, "size", lambda w, h: f"{w}x{h}")
    return "/api/paas/v4/async/images/generations", {"model": model, "prompt": prompt, **sized}


def _sized(fields: Fields, name: str, form: Callable[[int, int], object]) -> Fields:
    rest = {key: value for key, value in fields.items() if key not in ("width", "height")}
    return {**rest, name: form(fields["width"], fields["height"])} if "width" in fields else rest


def _fal_pictures(answer: Answer) -> list[Found]:
    return [
        Found(url=members(entry).get("url"), seed=answer.get("seed"))
        for entry in entries(answer.get("images"))
    ]


def _replicate_pictures(answer: Answer) -> list[Found]:
    output = answer.get("output")
    if answer.get("status") in ("failed", "canceled"):
        return [Found(reason=said(answer.get("error")) or str(answer["status"]))]
    return [
        Found(url=url)
        for url in (entries(output) if isinstance(output, list) else [output] if output else [])
    ]


def _replicate_later(answer: Answer) -> str | None:
    if answer.get("status") not in ("starting", "processing"):
        return None
    return urlsplit(str(members(answer.get("urls")).get("get", ""))).path or None


def _wavespeed_later(answer: Answer) -> str | None:
    return urlsplit(str(members(members(answer.get("data")).get("urls")).get("get", ""))).path or None


def _wavespeed_pictures(answer: Answer) -> list[Found]:
    data = members(answer.get("data"))
    if data.get("status") == "failed":
        return [Found(reason=said(data.get("error")) or "it failed")]
    return [Found(url=url) for url in entries(data.get("outputs"))]


def _zai_pictures(answer: Answer) -> list[Found]:
    if answer.get("task_status") == "FAIL":
        return [Found(reason=said(answer) or "it failed")]
    return [Found(url=members(entry).get("url")) for entry in entries(answer.get("image_result"))]


ROUTES: Mapping[str, Route] = {
    "fal-ai": Route(ask=_fal, read=_fal_pictures),
    "replicate": Route(
        ask=_replicate,
        read=_replicate_pictures,
        follow=_replicate_later,
        done=lambda answer: answer.get("status") not in ("starting", "processing"),
        headers={"prefer": "wait"},
    ),
    "together": Route(ask=_together, read=found_in),
    "nscale": Route(ask=_nscale, read=found_in),
    "wavespeed": Route(
        ask=_wavespeed,
        read=_wavespeed_pictures,
        follow=_wavespeed_later,
        done=lambda answer: members(answer.get("data")).get("status") in ("completed", "failed"),
    ),
    "zai-org": Route(
        ask=_zai,
        read=_zai_pictures,
        follow=lambda answer: (
            f"/api/paas/v4/async-result/{answer.get('id')}"
            if answer.get("task_status") == "PROCESSING"
            else None
        ),
        done=lambda answer: answer.get("task_status") != "PROCESSING",
        headers={"accept-language": "en-US,en"},
    ),
}
