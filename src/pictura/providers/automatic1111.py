"""http://HOST:7860 with api="a1111": AUTOMATIC1111's web interface, and those that speak its API.

    POST {base}/sdapi/v1/txt2img    and img2img, with a picture to start from

    GET  {base}/sdapi/v1/progress   meanwhile: steps and previews

What the server filled in, it says in its infotext, from which the request is completed. `#MODEL` is the
checkpoint to use for the request. A key "user:password" is sent as such. Progress is the server's, not a
request's, so it is asked for only by who makes one request at a time.
https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/API
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from pictura.errors import InputError, ProviderError
from pictura.options import Option
from pictura.picture import Picture, Preview, Step, infotext
from pictura.providers._bodies import entries, from_base64, members, said
from pictura.providers._calls import Beside, Flow, Reply
from pictura.providers._images import decoded
from pictura.providers._sent import IMAGE, MASK, data_address, options_of
from pictura.providers._service import Found, Service
from pictura.request import Request

_OPTIONS = (
    IMAGE,
    MASK,
    Option(name="strength", type=float, default=None, help="How far to leave the picture, 0..1."),
    Option(name="styles", type=list, default=None, help="Names of styles that the server has."),
)
_EVERY = 0.5  # seconds between two looks at the progress
_COMPLETED = ("num_steps", "guidance_scale", "sampler", "schedule", "size")


class Automatic1111(Service):
    name: ClassVar[str] = "automatic1111"
    title: ClassVar[str] = "AUTOMATIC1111"
    parameters = frozenset(
        {"size", "seed", "num_steps", "guidance_scale", "negative_prompt", "sampler", "schedule"}
    )
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in _OPTIONS}
    base: ClassVar[str] = "http://127.0.0.1:7860"
    keys: ClassVar[tuple[str, ...]] = ("AUTOMATIC1111_AUTH",)
    needs_key: ClassVar[bool] = False
    needs_model: ClassVar[bool] = False
    at_once: ClassVar[int] = 1  # it draws one after the other
    max_seed: ClassVar[int] = 2**32 - 3
    previews: ClassVar[bool] = True

    def headers(self) -> dict[str, str]:
        if self._key is None or ":" not in self._key.reveal():
            return super().headers()
        return {"authorization": f"Basic {base64.b64encode(self._key.reveal().encode()).decode()}"}

    def per_call(self, request: Request) -> int:
        return 4  # one answer holds them all

    def run(self, request: Request, count: int = 1, *, previews: bool = False) -> Flow[list[Picture]]:
        body = self._body(request, count)
        path = "txt2img" if "init_images" not in body else "img2img"
        beside = None if self.concurrency > 1 else self._progress(previews)
        answer = yield from self.ask_json(self.call("POST", f"sdapi/v1/{path}", json=body, beside=beside))
        return (yield from self.drawn(request, _found(answer, request), count, answer=answer))

    def reason(self, reply: Reply) -> str:
        try:
            body = members(reply.json())
        except ProviderError:
            return super().reason(reply)
        return said(body.get("detail")) or said(body.get("errors")) or super().reason(reply)

    def _progress(self, previews: bool) -> Beside:
        where = f"sdapi/v1/progress?skip_current_image={str(not previews).lower()}"
        told: list[object] = [None, None]  # the last step and preview

        def read(reply: Reply) -> Iterator[Step | Preview]:
            body = members(self.json(reply)) if reply.ok else {}
            state, image = members(body.get("state")), body.get("current_image")
            index, step, total = (state.get(f) for f in ("job_no", "sampling_step", "sampling_steps"))
            if not (
                isinstance(index, int) and isinstance(step, int) and isinstance(total, int) and total > 0
            ):
                return
            if step > 0 and told[0] != (index, step):
                told[0] = index, step
                yield Step(index=index, step=step, total=total)
            if previews and image and told[1] != image:
                told[1] = image
                picture = decoded(from_base64(image))
                yield Preview(index=index, step=step, total=total, image=picture)

        return Beside(self.call("GET", where), _EVERY, read)

    def _body(self, request: Request, count: int) -> dict[str, Any]:
        width, height = request.size or (None, None)
        fields = {
            "negative_prompt": request.negative_prompt,
            "seed": request.seed,
            "steps": request.num_steps,
            "cfg_scale": request.guidance_scale,
            "width": width,
            "height": height,
            "sampler_name": infotext.SAMPLERS.get(request.sampler or "", request.sampler),
            "scheduler": infotext.SCHEDULES.get(request.schedule or "", request.schedule),
            "n_iter": count,
            "denoising_strength": request.options.get("strength"),
            "mask": data_address(request, "mask"),
            "override_settings": {"sd_model_checkpoint": self.model} if self.model else None,
        }
        body = {name: value for name, value in fields.items() if value is not None}
        if (image := data_address(request, "image")) is not None:
            body["init_images"] = [image]
        return {"prompt": request.prompt, **body, **options_of(request, "image", "mask", "strength")}


def _found(answer: Mapping[str, Any], request: Request) -> list[Found]:
    """The pictures without the sheet of all that may come first, each with what its infotext says."""
    try:
        info = members(json.loads(answer.get("info") or "{}"))
    except (ValueError, TypeError, RecursionError):
        info = {}
    first = info.get("index_of_first_image")
    images = entries(answer.get("images"))[first if isinstance(first, int) and first > 0 else 0 :]
    seeds, texts = entries(info.get("all_seeds")), entries(info.get("infotexts"))[-len(images) or None :]
    model, digest = info.get("sd_model_name"), info.get("sd_model_hash")
    notes = [f"checkpoint: {model} [{digest}]"] if model else []
    return [
        Found(
            content=image,
            seed=seeds[index] if index < len(seeds) else None,
            changes=_completed(texts[index], request) if index < len(texts) else {},
            notes=notes,
        )
        for index, image in enumerate(images)
    ]


def _completed(text: object, request: Request) -> dict[str, Any]:
    """What the request left open, as the infotext has it."""
    try:
        said, _ = infotext.to_request(str(text))
    except InputError:
        return {}
    return {
        name: value
        for name in _COMPLETED
        if getattr(request, name) is None and (value := getattr(said, name)) is not None
    }


PROVIDER = Automatic1111
