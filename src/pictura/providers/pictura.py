"""http://HOST:PORT with api="pictura": a server of our own (`pictura serve`).

    POST {base}/api/attachments          pictures in options, each once
    POST {base}/api/jobs                 {"requests": [...]}, answered with the job
    GET  {base}/api/jobs/{id}/events     steps, previews, pictures and failures as they come
    GET  {base}/api/jobs/{id}            the same without events, where those do not come through
    DELETE {base}/api/jobs/{id}          when nobody wants it any more

`#MODEL` is one of the server's models. Each picture holds its completed request, which is read back.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote

from pictura.attachments import picture_file, recorded
from pictura.errors import (
    CheckpointError,
    EngineError,
    FileError,
    InputError,
    OutOfMemory,
    PicturaError,
    PresetError,
    ProviderError,
)
from pictura.options import Option
from pictura.picture import Failure, Picture, Preview, Step
from pictura.picture.metadata import Metadata, metadata_of
from pictura.providers._bodies import Events, entries, from_base64, members, members_of
from pictura.providers._calls import Flow, Undo, Wait
from pictura.providers._images import decoded
from pictura.providers._sent import IMAGE, MASK, idempotency_key, options_of
from pictura.providers._service import Found, Service
from pictura.request import Options, Request

_LEFT_OUT = ("model", "options", "prompt", "size", "seed")
_SILENT = 3  # streams of events that say nothing new, after which the job is asked for itself
_OPTIONS = (
    IMAGE,
    MASK,
    Option(name="reference", type=dict, default=None, attach="picture", help="A picture to be like: a file."),
    Option(name="control", type=list, default=None, attach="picture", help="What steers it, with pictures."),
)
_KINDS: Mapping[str, type[PicturaError]] = {
    kind.__name__: kind for kind in (CheckpointError, EngineError, InputError, OutOfMemory, PresetError)
} | {"ParameterError": InputError, "OtherModel": CheckpointError}


class Pictura(Service):
    name: ClassVar[str] = "pictura"
    title: ClassVar[str] = "the Pictura server"
    parameters = frozenset(
        {"size", "seed", "num_steps", "guidance_scale", "negative_prompt", "sampler", "schedule"}
    )
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in _OPTIONS}
    base: ClassVar[str] = "http://127.0.0.1:8000"
    keys: ClassVar[tuple[str, ...]] = ("PICTURA_API_KEY",)
    needs_key: ClassVar[bool] = False
    needs_model: ClassVar[bool] = False
    at_once: ClassVar[int] = 16  # it draws them together
    max_seed: ClassVar[int] = 2**63 - 1
    previews: ClassVar[bool] = True

    def per_call(self, request: Request) -> int:
        return 16

    def run(self, request: Request, count: int = 1, *, previews: bool = False) -> Flow[list[Picture]]:
        options = yield from self._attached(options_of(request))
        body = {"requests": [self._request(request, options, index) for index in range(count)]}
        job = yield from self.ask_json(self.call("POST", "api/jobs", json=body, headers=idempotency_key()))
        if not isinstance(job.get("id"), str) or not isinstance(job.get("status"), str):
            raise self.error("answered with what is no job; check base_url")
        where = f"api/jobs/{quote(job['id'], safe='')}"
        yield Undo(self.call("DELETE", where))
        told = _Told(request, count)
        yield from self._take(job, told)
        if not told.over:
            yield from self._watch(where, told, previews)
        while not told.over:
            more = partial(_has_more, told)
            yield from self._take((yield from self.follow(self.call("GET", where), more)), told)
        if not told.made:
            raise told.failed[min(told.failed)]
        return list(told.made.values())

    def _attached(self, value: Any) -> Flow[Any]:
        """Options as the server takes them: the pictures in them sent there, and named by their digests."""
        if isinstance(value, dict) and value and value.keys() <= {"path", "sha256"}:
            record = value if "sha256" in value else recorded(value, "options")
            content = picture_file(record, "options")
            call = self.call("POST", "api/attachments", content=content)
            answer = yield from self.ask_json(call)
            return {"sha256": answer.get("sha256")}
        if isinstance(value, dict):
            sent = {}
            for name, item in value.items():
                sent[name] = item if name in ("lora", "embeddings") else (yield from self._attached(item))
            return sent
        if isinstance(value, list):
            items = []
            for item in value:
                items.append((yield from self._attached(item)))
            return items
        return value

    def _request(self, request: Request, options: Mapping[str, Any], index: int) -> dict[str, Any]:
        values = request.to_dict()
        sent: dict[str, Any] = {"prompt": request.prompt}
        sent |= {name: value for name, value in values.items() if name not in _LEFT_OUT}
        if request.size is not None:
            sent["size"] = f"{request.size[0]}x{request.size[1]}"
        if request.seed is not None:
            sent["seed"] = request.seed + index
        if self.model:
            sent["model"] = self.model
        if options:
            sent["options"] = options
        return sent

    def _watch(self, where: str, told: _Told, previews: bool) -> Flow[None]:
        """Tell the job's events. After a lost connection they go on where they ended.

        Returns where events no longer come: the job itself goes on without anybody watching.
        """
        silent, last = 0, ""
        while silent < _SILENT and not told.over:
            headers = {"accept": "text/event-stream"} | ({"last-event-id": last} if last else {})
            events, silent = Events(), silent + 1
            try:
                yield from self.ask(self.call("GET", f"{where}/events", stream=True, headers=headers))
                while not told.ready and (event := (yield from events.next())) is not None:
                    yield from self._happened(event[0], members_of(event[1]), told, previews)
                    if told.waiting and not events.here:  # to fetch them ends the stream
                        break
            except ProviderError:
                pass
            if events.last not in ("", last):
                silent, last = 0, events.last
            if told.waiting:
                yield from self._fetch(told)
            elif told.status is not None:
                return
            else:
                yield Wait(random.uniform(0.1, 0.2 * 2**silent))

    def _happened(self, kind: str, body: Mapping[str, Any], told: _Told, previews: bool) -> Flow[None]:
        index = body.get("index")
        if kind == "status" and _over(body):
            told.status = str(body["status"])
        if not isinstance(index, int) or not 0 <= index < told.count:
            return
        step, total = _whole(body.get("step")) or 0, _whole(body.get("total"))
        if kind == "step":
            yield Step(index=index, step=step, total=total)
        elif kind == "preview" and previews:
            try:
                image = decoded(from_base64(body.get("image")))
            except ProviderError:
                return  # the picture itself may still come
            yield Preview(index=index, step=step, total=total, image=image)
        elif kind == "picture" and index not in told.made:
            told.waiting[index] = body
        elif kind == "failure" and index not in told.failed:
            error = _KINDS.get(str(body.get("kind")), ProviderError)
            yield from self._fail(index, error(f"{self.who} failed: {self.shown(body.get('error'))}"), told)

    def _take(self, job: Mapping[str, Any], told: _Told) -> Flow[None]:
        """What a job says of itself."""
        for entry in map(members, entries(job.get("images"))):
            yield from self._happened("picture", entry, told, False)
        for entry in map(members, entries(job.get("failures"))):
            yield from self._happened("failure", entry, told, False)
        yield from self._fetch(told)
        if _over(job):
            for index in set(range(told.count)) - told.made.keys() - told.failed.keys():
                yield from self._fail(index, self.error(f"made no picture: the job is {job['status']}"), told)

    def _fetch(self, told: _Told) -> Flow[None]:
        """Tell the pictures that are there."""
        while told.waiting:
            index, entry = told.waiting.popitem()
            try:
                content = yield from self.fetch(entry.get("url"))
                said = _said(content)
                changes = _completed(said, told.request)
                found = Found(seed=entry.get("seed"), changes=changes, notes=said.notes)
                picture = yield from self.picture(told.request, content, found, index)
            except ProviderError as error:
                yield from self._fail(index, error, told)
            else:
                digest = None if self.holds_key(said.model_digest) else said.model_digest
                told.made[index] = picture.amended(model_digest=digest)
                yield told.made[index]

    def _fail(self, index: int, error: PicturaError, told: _Told) -> Flow[None]:
        told.failed[index] = error
        yield Failure(index=index, request=told.request, error=error)


class _Told:
    """What is known of a job."""

    def __init__(self, request: Request, count: int) -> None:
        self.request, self.count = request, count
        self.made: dict[int, Picture] = {}
        self.failed: dict[int, PicturaError] = {}
        self.waiting: dict[int, Mapping[str, Any]] = {}  # pictures to fetch
        self.status: str | None = None  # once it has ended

    @property
    def ready(self) -> bool:
        """Whether there is nothing more to hear."""
        return (
            self.status is not None
            or len(self.made.keys() | self.failed.keys() | self.waiting.keys()) == self.count
        )

    @property
    def over(self) -> bool:
        """Whether every picture is there or has failed."""
        return len(self.made.keys() | self.failed.keys()) == self.count


def _over(job: Mapping[str, Any]) -> bool:
    return job.get("status") not in ("queued", "running", None)


def _has_more(told: _Told, job: Mapping[str, Any]) -> bool:
    ended = [*entries(job.get("images")), *entries(job.get("failures"))]
    return _over(job) or len(ended) > len(told.made) + len(told.failed)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _said(content: bytes) -> Metadata:
    """What a picture's file says of itself."""
    try:
        return metadata_of(content)
    except FileError:
        return Metadata(source="", size=(0, 0))


def _completed(said: Metadata, request: Request) -> dict[str, Any]:
    """What the request left open, as the picture's own description has it."""
    if said.request is None:
        return {}
    own = said.request.amended(model=request.model)
    open_ = {name: value for name, value in vars(own).items() if getattr(request, name) is None}
    return open_ | {"options": Options({**own.options, **request.options})}


PROVIDER = Pictura
