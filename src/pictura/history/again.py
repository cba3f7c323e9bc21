"""A request as what a person would write to have its picture made again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from pictura.request import Request

__all__ = ["command", "python"]


def command(request: Request, *, strict: bool = True) -> str:
    """The line for a POSIX shell that draws `request`."""
    return shlex.join(["pictura", "generate", *_arguments(request, strict)])


def python(request: Request, *, strict: bool = True) -> str:
    """The lines of Python that draw `request`."""
    values = request.to_dict()
    model = values.pop("model", "scenes")
    given = ", ".join(f"{name}={value!r}" for name, value in values.items())
    more = "" if strict else ", strict=False"
    return (
        "import pictura\n\n"
        f"model = pictura.TextToImage.from_preset({model!r})\n"
        f"picture = model.generate(pictura.Request({given}){more})\n"
    )


def _arguments(request: Request, strict: bool) -> Iterator[str]:
    size = None if request.size is None else "{}x{}".format(*request.size)
    named = {
        "--model": request.model,
        "--seed": request.seed,
        "--steps": request.num_steps,
        "--guidance": request.guidance_scale,
        "--sampler": request.sampler,
        "--size": size,
        "--negative": request.negative_prompt,
    }
    for name, value in named.items():
        if value is not None:
            yield f"{name}={value}"
    options = {"schedule": request.schedule, **request.to_dict().get("options", {})}
    for name, value in options.items():
        if value is not None:
            yield f"--option={name}={_option(value)}"
    if not strict:
        yield "--no-strict"
    yield "--"
    yield request.prompt


def _option(value: Any) -> str:
    """What `--option` reads as `value`: JSON, or a text that is none."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, ensure_ascii=False)
