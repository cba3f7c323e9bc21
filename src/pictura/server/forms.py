"""Forms with pictures, as OpenAI's edits have them: texts, and files whose kind their content says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request as Asked
from starlette.datastructures import FormData, UploadFile

from pictura.attachments import open_picture, recorded
from pictura.errors import ParameterError
from pictura.server import uploads

__all__ = ["Form", "mask_of", "read"]

MOST = {"max_files": 20, "max_fields": 200}


class Form:
    """values: by name, those with brackets as objects and lists. files: the contents by name, in order.

    said: what is the same when the client sends it again, unlike the body, whose marks are drawn anew.
    """

    def __init__(self, values: Mapping[str, Any], files: Mapping[str, list[bytes]]) -> None:
        self.values, self.files = values, files
        digests = {
            name: [hashlib.sha256(file).hexdigest() for file in found] for name, found in files.items()
        }
        self.said = json.dumps([values, digests], sort_keys=True).encode()


async def read(asked: Asked) -> Form:
    """The form that the body is; ParameterError for anything else."""
    if not asked.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ParameterError("the body is no form; send multipart/form-data", parameter="body")
    async with asked.form(max_files=MOST["max_files"], max_fields=MOST["max_fields"]) as form:
        return await _read(form)


def mask_of(content: bytes) -> dict[str, str]:
    """Our mask, white where the picture is made anew, of one that is transparent there (or white itself)."""
    from PIL import ImageOps

    image = open_picture(uploads.kept(content, "mask"), "mask")
    if image.mode in ("RGBA", "LA"):
        alpha = image.getchannel("A")
        return recorded(ImageOps.invert(alpha).convert("L"), "mask")
    return recorded(image.convert("L"), "mask")


async def _read(form: FormData) -> Form:
    values: dict[str, Any] = {}
    files: dict[str, list[bytes]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.setdefault(name.removesuffix("[]"), []).append(await value.read())
        else:
            _put(values, name, value)
    return Form(values, files)


def _put(values: dict[str, Any], name: str, value: str) -> None:
    """`a[b]` is a member of the object a, whose values are read as JSON where they are that."""
    outer, bracket, inner = name.partition("[")
    inner = inner.removesuffix("]")
    if not bracket or not inner:
        values[outer] = value
        return
    members = values.setdefault(outer, {})
    if not isinstance(members, dict) or "[" in inner or "]" in inner:
        raise ParameterError(f"field {name[:60]!r} is not possible; send {outer[:60]} once", parameter=outer)
    try:
        members[inner] = json.loads(value)
    except (ValueError, RecursionError):
        members[inner] = value
