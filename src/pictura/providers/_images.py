"""Pictures in the files that services send."""

from __future__ import annotations

import io

from PIL import Image, PngImagePlugin

from pictura.errors import ProviderError
from pictura.providers._bodies import text_of
from pictura.providers._calls import Reply
from pictura.request import MAX_SIDE

__all__ = ["decoded"]

_PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF", "TIFF", "BMP")  # none that runs anything


def decoded(content: bytes) -> Image.Image:
    """The RGB picture that a file holds, without anything else that is in it; ProviderError if it is none."""
    try:
        image = _opened(content)
        if max(image.size) > MAX_SIDE:
            raise ProviderError(
                f"a picture of {image.width}x{image.height} pixels, where at most {MAX_SIDE} a side are read",
                again=False,
            )
        plain = _opaque(image)  # reads the pixels
        plain.info.clear()
        return plain
    except (ProviderError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ProviderError("a picture of far more pixels than are read", again=False) from None
    except Exception:  # PIL's readers raise whatever the damage leads to
        words = text_of(Reply(200, {}, content)) if _kind(content) == "JSON" else ""
        raise ProviderError(
            f"{len(content)} bytes of {_kind(content)} in place of a picture{f': {words}' if words else ''}"
        ) from None


def _opened(content: bytes) -> Image.Image:
    if content.startswith(_PNG):  # what nearly all send, and what `open` takes a while to find out
        return PngImagePlugin.PngImageFile(io.BytesIO(content))
    return Image.open(io.BytesIO(content), formats=_FORMATS)


def _opaque(image: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white, as viewers show it."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        full = image.convert("RGBA")
        white = Image.new("RGBA", full.size, "white")
        white.alpha_composite(full)
        return white.convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _kind(content: bytes) -> str:
    start = content[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<")):
        return "a web page"
    if start.startswith((b"{", b"[")):
        return "JSON"
    return "what cannot be read"
