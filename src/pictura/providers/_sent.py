"""What goes out with a request besides its texts and numbers."""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any

from pictura.attachments import open_picture
from pictura.options import Option
from pictura.request import Request
from pictura.text.wording import OPTIONS

__all__ = ["IMAGE", "MASK", "attached", "data_address", "idempotency_key", "multipart", "options_of"]

IMAGE = Option(
    name="image", type=dict, default=None, attach="picture", help="The picture to start from: a file."
)
MASK = Option(
    name="mask", type=dict, default=None, attach="picture", help="What of the picture may change: a file."
)
_count = count()


def options_of(request: Request, *left_out: str, own: Collection[str] = ()) -> dict[str, Any]:
    """The request's options as JSON values, without those named and those about its text.

    own: of the latter, what the service has an option of the same name for.
    """
    if not request.options:
        return {}
    plain = request.to_dict().get("options", {})
    return {name: value for name, value in plain.items() if name not in {*left_out, *OPTIONS.difference(own)}}


def attached(request: Request, name: str) -> bytes | None:
    """The picture that option `name` holds, as a PNG."""
    record = request.options.get(name)
    if record is None:
        return None
    file = io.BytesIO()
    picture = open_picture(record, name)
    picture = picture if picture.mode in ("RGB", "RGBA", "L") else picture.convert("RGBA")
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def data_address(request: Request, name: str) -> str | None:
    """The picture that option `name` holds, as a data address."""
    content = attached(request, name)
    return None if content is None else f"data:image/png;base64,{base64.b64encode(content).decode()}"


def idempotency_key() -> dict[str, str]:
    """A header that is the same over the retries of one call, so that a service makes its picture once."""
    return {"idempotency-key": f"{_process(os.getpid())}-{next(_count):08x}"}


@cache
def _process(number: int) -> str:
    """What no other process has, drawn once, since that takes longer than all the rest of the header."""
    return uuid.uuid4().hex


def multipart(
    fields: Mapping[str, Any], files: Sequence[tuple[str, bytes]] = ()
) -> tuple[bytes, dict[str, str]]:
    """(body, headers) of a form with texts and PNG files (RFC 7578); numbers are sent as text."""
    mark = secrets.token_hex(16)
    parts = []
    for name, value in fields.items():
        text = value if isinstance(value, str) else json.dumps(value)
        parts.append(f"--{mark}\r\n{_disposition(name)}\r\n\r\n{text}\r\n".encode())
    for name, content in files:
        kind = f'; filename="{name.strip("[]")}.png"\r\ncontent-type: image/png'
        parts += [f"--{mark}\r\n{_disposition(name)}{kind}\r\n\r\n".encode(), content, b"\r\n"]
    parts.append(f"--{mark}--\r\n".encode())
    return b"".join(parts), {"content-type": f"multipart/form-data; boundary={mark}"}


def _disposition(name: str) -> str:
    plain = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    return f'content-disposition: form-data; name="{plain}"'
