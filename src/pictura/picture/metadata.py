"""How a picture was made, inside its file.

PNG     an iTXt chunk "pictura" (JSON) and a text chunk "parameters" (see infotext.py)
JPEG    the same JSON as an XMP property, the same text as EXIF UserComment
WebP    as JPEG

The JSON is {"request": {...}, "model_digest": ..., "version": ..., "ignored": [...], "notes": [...]}. It
holds no times, so the same picture always gives the same file.
"""

from __future__ import annotations

import html
import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from pictura.errors import FileError, InputError, did_you_mean, shown
from pictura.picture import infotext
from pictura.request import MAX_SIDE, Request

__all__ = ["FORMATS", "Metadata", "load", "metadata_of", "read_metadata", "save_arguments"]

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_MAX_TEXT = 1 << 20  # characters
_MAX_SEGMENT = 65_500  # bytes of one JPEG segment, its headers taken off
_NAMESPACE = "urn:pictura:metadata"


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a file says about how its picture was made.

    source: "pictura", "parameters" (another tool's text) or "none". request: None for "none".
    settings: the pairs of the parameters text as they are spelt. notes: the picture's own, and what of
    another tool's text did not fit.
    """

    source: str
    size: tuple[int, int]
    request: Request | None = None
    model_digest: str | None = None
    version: str | None = None
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parameters: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """What the PNG, JPEG or WebP at `path` says; FileError where it is missing, damaged or hostile."""
    with _opened(path) as image:
        return _read(image)


def metadata_of(content: bytes) -> Metadata:
    """What the file with this content says; FileError as `read_metadata`."""
    with _opened(io.BytesIO(content)) as image:
        return _read(image)


def load(file: str | os.PathLike[str] | bytes) -> tuple[Image.Image, Metadata]:
    """(RGB image, metadata) of a file, or of what would be in one; FileError as `read_metadata`."""
    with _opened(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
        metadata = _read(image)
        plain = image.convert("RGB")
        plain.info.clear()  # saving it again must not carry along what this file had besides
        return plain, metadata


def save_arguments(suffix: str, metadata: Metadata) -> tuple[str, dict[str, Any]]:
    """(format, keyword arguments) for PIL's `save` that write `metadata`, which must have a request.

    FileError where no format goes by `suffix`, or a text is too long for JPEG.
    """
    if suffix.lower() not in FORMATS:
        raise FileError(f"pictures cannot be saved as {suffix!r}; {did_you_mean(suffix, FORMATS)}")
    assert metadata.request is not None
    kind = FORMATS[suffix.lower()]
    chunk = _to_json(metadata)
    digest, version = metadata.model_digest, metadata.version or ""
    text = infotext.write(metadata.request, model_digest=digest, version=version)
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("pictura", chunk)
        info.add_text("parameters", text)
        return kind, {"pnginfo": info}
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = b"UNICODE\0" + text.encode("utf-16-be")
    xmp = _to_xmp(chunk)
    if kind == "WEBP":
        return kind, {"exif": exif, "xmp": xmp, "lossless": True}
    if max(len(xmp), len(exif.tobytes())) > _MAX_SEGMENT:
        raise FileError("the prompts are too long to travel inside a JPEG file; save as .png or .webp")
    return kind, {"exif": exif, "xmp": xmp, "quality": 95, "subsampling": 0}


@contextmanager
def _opened(path: str | os.PathLike[str] | io.BytesIO) -> Iterator[Image.Image]:
    """The fully decoded image at `path`. Whatever goes wrong, in this or in the block, is one FileError."""
    name = "the picture" if isinstance(path, io.BytesIO) else shown(os.fspath(path), 200)
    if not isinstance(path, io.BytesIO) and not Path(path).is_file():
        raise FileError(f"there is no file {name}")
    try:
        with warnings.catch_warnings():  # PIL warns of large images; the check below decides
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=sorted(set(FORMATS.values())))
        with image:
            if max(image.size) > MAX_SIDE:
                pixels = f"{image.width}x{image.height}"
                raise FileError(f"it has {pixels} pixels; at most {MAX_SIDE} a side are read")
            image.load()
            yield image
    except FileError as error:
        raise FileError(f"{name} cannot be read: {error}") from error
    except UnidentifiedImageError as error:
        raise FileError(f"{name} is no picture that can be read (PNG, JPEG or WebP)") from error
    except MemoryError:
        raise
    except Exception as error:  # PIL's readers raise whatever the damage leads to
        reason = shown(str(error) or type(error).__name__, 100).strip("'\"")
        raise FileError(f"{name} is damaged: {reason}") from error


def _read(image: Image.Image) -> Metadata:
    chunk, parameters = _from_png(image) if image.format == "PNG" else _from_segments(image)
    for text in (chunk, parameters):
        if text is not None and len(text) > _MAX_TEXT:
            raise FileError(f"it holds a text of {len(text):,} characters; at most {_MAX_TEXT:,} are read")
    settings = {} if parameters is None else infotext.parse(parameters)[2]
    both: dict[str, Any] = {"size": image.size, "parameters": parameters, "settings": settings}
    if chunk is None and parameters is None:
        return Metadata(source="none", size=image.size)
    try:
        if chunk is not None:
            return Metadata(source="pictura", **both, **_from_json(chunk))
        request, notes = infotext.to_request(parameters or "")
    except InputError as error:
        raise FileError(f"its description is not valid: {error}") from error
    return Metadata(
        source="parameters",
        request=request,
        model_digest=settings.get("Model hash"),
        version=settings.get("Version"),
        notes=notes,
        **both,
    )


def _to_json(metadata: Metadata) -> str:
    assert metadata.request is not None
    values = {
        "request": metadata.request.to_dict(),
        "model_digest": metadata.model_digest,
        "version": metadata.version,
        "ignored": list(metadata.ignored),
        "notes": list(metadata.notes),
    }
    return json.dumps(values, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _from_json(chunk: str) -> dict[str, Any]:
    try:
        values = json.loads(chunk)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not JSON ({shown(chunk)})") from error
    if not isinstance(values, dict) or not isinstance(values.get("request"), dict):
        raise InputError("it has no request")
    found: dict[str, Any] = {"request": Request.from_dict(values["request"])}
    for name in ("model_digest", "version"):
        found[name] = values.get(name)
        if not isinstance(found[name], str | None):
            raise InputError(f"its {name} is no text")
    for name in ("ignored", "notes"):
        found[name] = values.get(name, [])
        if not isinstance(found[name], list) or not all(isinstance(item, str) for item in found[name]):
            raise InputError(f"its {name} is no list of texts")
        found[name] = tuple(found[name])
    return found


def _from_png(image: Image.Image) -> tuple[str | None, str | None]:
    texts = getattr(image, "text", {})
    return texts.get("pictura"), texts.get("parameters")


def _from_segments(image: Image.Image) -> tuple[str | None, str | None]:
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    xmp = image.info.get("xmp")
    return _from_xmp(xmp) if isinstance(xmp, bytes) else None, _comment(comment)


def _comment(value: object) -> str | None:
    """EXIF 2.3, UserComment: eight bytes that name the encoding, then the text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes) or len(value) <= 8:
        return None
    name, text = value[:8], value[8:]
    if name != b"UNICODE\0":
        return text.decode("utf-8", "replace").strip("\0") or None
    # The byte order is that of the writer's machine or always big: plain text has zeros in the high bytes.
    little = text[1::2].count(0) > text[0::2].count(0)
    return text.decode("utf-16-le" if little else "utf-16-be", "replace")


def _to_xmp(chunk: str) -> bytes:
    # The two characters that JSON may hold and XML may not.
    chunk = chunk.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:pictura="{_NAMESPACE}" pictura:metadata={quoteattr(chunk)}/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def _from_xmp(packet: bytes) -> str | None:
    """Our property, as attribute or element: other tools rewrite one as the other.

    No XML parser, whose entities a hostile packet could use; a well-formed property needs none.
    """
    text = packet.decode("utf-8", "replace")
    attribute = re.search(r"pictura:metadata\s*=\s*(\"[^\"]*\"|'[^']*')", text)
    if attribute:
        return html.unescape(attribute.group(1)[1:-1])
    element = re.search(r"<pictura:metadata>([^<]*)</pictura:metadata>", text)
    return html.unescape(element.group(1)) if element else None
