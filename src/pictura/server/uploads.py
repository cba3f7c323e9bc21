"""Pictures that clients send: looked at before they are decoded, since few bytes may be many pixels."""

from __future__ import annotations

import base64
import binascii
import io
import threading
import warnings

from PIL import Image

from pictura.attachments import FORMATS, recorded
from pictura.errors import ParameterError, shown
from pictura.request import parse_size

__all__ = ["MOST", "kept", "picture_in", "possible"]

MOST = 4096 * 4096  # pixels
_one = threading.Lock()  # decodes at a time: each takes up to 64 MB and more


def kept(content: bytes, parameter: str) -> dict[str, str]:
    """`recorded`: {"sha256"} of a sound picture. ParameterError for what is none, or has too many pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            size = Image.open(io.BytesIO(content), formats=FORMATS).size
    except Exception:  # PIL's readers raise whatever the damage leads to
        size = (1, 1)  # recorded says what is wrong with it
    _few(size, parameter)
    with _one:
        return recorded(content, parameter)


def picture_in(text: object, name: str) -> bytes:
    """The content of base64 or a data URI; ParameterError for anything else, addresses included."""
    if not isinstance(text, str):
        raise ParameterError(f"{name} is {shown(text)}; give a picture as base64", parameter=name)
    data = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ParameterError(f"Invalid encoded image in {name}; give it as base64", parameter=name) from None


def possible(width: int, height: int) -> tuple[int, int]:
    """A size that a picture may be brought to; ParameterError."""
    _few(size := parse_size((width, height)), "size")
    return size


def _few(size: tuple[int, int], parameter: str) -> None:
    if size[0] * size[1] > MOST:
        raise ParameterError(
            f"{parameter} has {size[0]}x{size[1]} pixels; at most {MOST >> 20} million are read",
            parameter=parameter,
        )
