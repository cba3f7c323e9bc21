"""http://HOST:PORT with api="pictura": a server of our own (`pictura serve`).

    POST {base}/api/jobs                 {"requests": [...]}, answered with the job
    GET  {base}/api/jobs/{id}/events     steps, previews and pictures as they come
    GET  {base}/api/jobs/{id}            the same without events
    DELETE {base}/api/jobs/{id}          when nobody wants it any more

`#MODEL` is one of the server's models. Each picture holds its completed request, which is read back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar
from urllib.parse import quote

from pictura.errors import FileError, ProviderError
from pictura.picture import Failure, Picture, Preview, Step
from pictura.picture.metadata import metadata_of
from pictura.providers._bodies import Events, decoded, entries, from_base64, members, said
from pictura.providers._calls import Flow, Undo
from pictura.providers._sent import idempotency_key, options_of
from pictura.providers._service import Found, Service
from pictura.request import Request

_LEFT_OUT = ("model", "options", "prompt", "size", "seed")


class Pictura(Service):
    name: ClassVar[str] = "pictura"
    title: ClassVar[str] = "the Pictura server"
    parameters = frozenset(
        {"size", "seed", "num_steps", "guidance_scale", "negative_prompt", "sampler", "schedule"}
    )
    base: ClassVar[str] = "http://127.0.0.1:8000"
    keys: ClassVar[tuple[str, ...]] = ("PICTURA_API_KEY",)
    needs_key: ClassVar[bool] = False
    max_seed: ClassVar[int] = 2**63 - 1
    previews: ClassVar[bool] = True

    def per_call(self, request: Request) -> int:
        return 16

    def run(self, request: Request, count: int = 1, *, previews: bool = False) -> Flow[list[Picture]]:
        body = {"requests": [self._request(request, index) for index in range(count)]}
        job = yield from self.ask_json(self.call("POST", "api/jobs", json=body, headers=idempotency_key()))
        if not isinstance(job.get("id"), str) or not isinstance(job.get("status"), str):
            raise self.error("answered with what is no job; check base_url")
        where = f"api/jobs/{quote(job['id'], safe='')}"
        yield Undo(self.call("DELETE", where))
        made: dict[int, Picture] = {}
        if previews and not _over(job):
            try:
                yield from self._watch(where, request, made)
            except ProviderError:
                pass  # the job goes on without anybody watching
        pause = self.call("GET", where)
        while True:
            yield from self._take(job, request, made)
            if _over(job):
                break
            job = yield from self.follow(pause, lambda body: _over(body) or len(_images(body)) > len(made))
        reasons = {entry.get("index"): entry for entry in map(members, entries(job.get("failures")))}
        errors = {
            index: self.error(f"failed: {said(members(reasons.get(index))) or job.get('status')}")
            for index in range(count)
            if index not in made
        }
        if not made:
            raise errors[0]
        for index, error in errors.items():
            yield Failure(index=index, request=request, error=error)
        return list(made.values())

    def _request(self, request: Request, index: int) -> dict[str, Any]:
        values = request.to_dict()
        sent: dict[str, Any] = {"prompt": request.prompt}
        sent |= {name: value for name, value in values.items() if name not in _LEFT_OUT}
        if request.size is not None:
            sent["size"] = f"{request.size[0]}x{request.size[1]}"
        if request.seed is not None:
            sent["seed"] = request.seed + index
        if self.model:
            sent["model"] = self.model
        if options := options_of(request):
            sent["options"] = options
        return sent

    def _take(self, job: Mapping[str, Any], request: Request, made: dict[int, Picture]) -> Flow[None]:
        """Fetch the job's pictures that are not here yet."""
        for entry in _images(job):
            index = entry.get("index")
            if isinstance(index, int) and index not in made:
                content = yield from self.fetch(entry.get("url"))
                found = Found(seed=entry.get("seed"), changes=_completed(content, request))
                picture = yield from self.picture(request, content, found, index)
                made[index] = picture
                yield picture

    def _watch(self, where: str, request: Request, made: dict[int, Picture]) -> Flow[None]:
        """Tell the job's events until it is over."""
        call = self.call("GET", f"{where}/events", stream=True, headers={"accept": "text/event-stream"})
        yield from self.ask(call)
        events, there = Events(), []
        while (event := (yield from events.next())) is not None:
            body = _object(event[1])
            kind, index = event[0], body.get("index")
            if not isinstance(index, int):
                continue
            step, total = _whole(body.get("step")) or 0, _whole(body.get("total"))
            if kind == "step":
                yield Step(index=index, step=step, total=total)
            elif kind == "preview" and (image := body.get("image") or body.get("b64_json")):
                yield Preview(index=index, step=step, total=total, image=decoded(from_base64(image)))
            elif kind == "picture":
                there.append(body)
        yield from self._take({"images": there}, request, made)


def _over(job: Mapping[str, Any]) -> bool:
    return job.get("status") not in ("queued", "running", None)


def _images(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [members(entry) for entry in entries(job.get("images"))]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _completed(content: bytes, request: Request) -> dict[str, Any]:
    """What the request left open, as the picture's own description has it."""
    try:
        recorded = metadata_of(content).request
    except FileError:
        return {}
    if recorded is None:
        return {}
    own = replace(recorded, model=request.model)
    return {name: value for name, value in vars(own).items() if getattr(request, name) in (None, {})}


def _object(text: str) -> Mapping[str, Any]:
    try:
        return members(json.loads(text))
    except (ValueError, RecursionError):
        return {}


PROVIDER = Pictura
