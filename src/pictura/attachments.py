"""Pictures and files that a request refers to: recorded by content, kept for replay, checked before use.

A request is JSON, so a picture or a weights file stands in it as {"path": ..., "sha256": ...}; without
"path" where it never was a file. Pictures are copied into the user's cache under their digest, so that a
request can be replayed after the file has moved or changed. Larger files are not copied, only their place
is remembered. Whatever is opened is first compared with the digest: a changed file is never used silently.

Whoever takes requests from strangers must not let them name a "path": it is opened as the user.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pictura.errors import FileError, ParameterError, shown
from pictura.picture.files import atomic, cache_folder, sha256
from pictura.request import MAX_SIDE

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Kind", "attached", "kept", "open_file", "open_picture", "picture_file", "recorded"]

Kind = Literal["picture", "file"]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
MAX_BYTES = 64 << 20  # of a picture's file
_DIGEST = re.compile(r"[0-9a-f]{64}")


def recorded(given: object, parameter: str, kind: Kind = "picture") -> dict[str, str]:
    """{"path"?, "sha256"} for a path, a PIL image, the bytes of an image file or an array (h, w[, 3 or 4]).

    Array values are uint8, or floats in [0, 1]. A picture is decoded once to see that it is sound, and
    copied into the cache. Files that are no pictures are given by path only. ParameterError for whatever
    cannot be used.
    """
    if isinstance(given, Mapping):
        return _completed(given, parameter, kind)
    if isinstance(given, (str, os.PathLike)):
        path = os.fspath(given)
        if not isinstance(path, str) or not path or "\0" in path:
            raise _wrong(given, parameter, "give the path of a file")
        return _completed({"path": path}, parameter, kind)
    if kind == "file":
        raise _wrong(given, parameter, "give the path of a file")
    data = given if isinstance(given, bytes) else _encoded(given, parameter)
    _decoded(data, parameter, "the picture")
    return {"sha256": _keep(data, parameter)}


def attached(value: object, parameter: str, kind: Kind) -> Any:
    """`value` with each picture, and each {"path": ...} in its lists and mappings, recorded.

    A bare text is left as it is unless it is all there is: a list of files is a list of {"path": ...}.
    """
    if isinstance(value, str):
        return recorded(value, parameter, kind)
    return _walk(value, parameter, kind)


def open_picture(record: Mapping[str, Any], parameter: str) -> Image.Image:
    """The decoded picture, upright, in the mode its file has (palettes become RGB or RGBA).

    ParameterError where no copy with the recorded digest is left.
    """
    data = picture_file(record, parameter)
    return _decoded(data, parameter, shown(str(record.get("path") or "the picture")))


def picture_file(record: Mapping[str, Any], parameter: str) -> bytes:
    """The bytes of the picture's file; ParameterError where no copy with the recorded digest is left."""
    return _picture_place(record, parameter).read_bytes()


def open_file(record: Mapping[str, Any], parameter: str) -> Path:
    """Where the file lies whose content has the recorded digest; ParameterError where it is not found."""
    path, digest = record.get("path"), _digest_of(record, parameter)
    places = [Path(path).expanduser()] if isinstance(path, str) else []
    note = kept(digest).with_suffix(".path")
    if note.is_file():
        places.append(Path(note.read_text("utf-8", "surrogateescape")))
    found = [place for place in places if place.is_file()]
    for place in found:
        if _hash(place) == digest:
            return place
    raise _changed(found[0], parameter) if found else _lost(path, digest, parameter)


def _picture_place(record: Mapping[str, Any], parameter: str) -> Path:
    """The kept copy, or the file itself where the cache has lost it."""
    path, digest = record.get("path"), _digest_of(record, parameter)
    copy = kept(digest)
    if _hash(copy) == digest:
        return copy
    place = Path(str(path)).expanduser()
    if path and place.is_file():
        if _hash(place) == digest:
            return place
        raise _changed(path, parameter)
    raise _lost(path, digest, parameter)


def _completed(record: Mapping[str, Any], parameter: str, kind: Kind) -> dict[str, str]:
    """A record with its digest: computed where it has none, else looked up and compared."""
    path = record.get("path")
    if set(record) - {"path", "sha256"} or not isinstance(path, str | None):
        raise _wrong(dict(record), parameter, "give a path, or {'path': ..., 'sha256': ...}")
    if "sha256" in record:
        _picture_place(record, parameter) if kind == "picture" else open_file(record, parameter)
        return {name: str(record[name]) for name in ("path", "sha256") if record.get(name) is not None}
    place = Path(path or "").expanduser()
    if not path or not place.is_file():
        raise ParameterError(f"{parameter} is {shown(path)}, which is no file; give one", parameter=parameter)
    if kind == "file":
        digest = _hash(place)
        if digest is None:
            raise _unreadable(path, parameter)
        _note(digest, place)
        return {"path": path, "sha256": digest}
    if place.stat().st_size > MAX_BYTES:
        raise _wrong(path, parameter, f"at most {MAX_BYTES >> 20} MB are read")
    data = _read(path)
    if data is None:
        raise _unreadable(path, parameter)
    _decoded(data, parameter, shown(path))
    return {"path": path, "sha256": _keep(data, parameter, must=False)}


def _walk(value: object, parameter: str, kind: Kind) -> Any:
    if isinstance(value, Mapping):
        if not set(value) - {"path", "sha256"}:
            return recorded(value, parameter, kind)
        inner = {name: _walk(item, parameter, kind) for name, item in value.items()}
        if isinstance(value.get("path"), str):
            place = {name: value[name] for name in ("path", "sha256") if name in value}
            inner |= recorded(place, parameter, kind)
        return inner
    if isinstance(value, (list, tuple)):
        return [_walk(item, parameter, kind) for item in value]
    if isinstance(value, (bytes, os.PathLike)) or hasattr(value, "__array_interface__"):
        return recorded(value, parameter, kind)
    return value


def _encoded(given: object, parameter: str) -> bytes:
    """A PNG of an image or an array."""
    import numpy as np
    from PIL import Image

    if not isinstance(given, Image.Image):
        array = np.asarray(given)
        if array.dtype.kind == "f" and array.size and 0 <= array.min() and array.max() <= 1:
            array = (array * 255).round().astype(np.uint8)
        if array.dtype == np.bool_:
            array = array.astype(np.uint8) * 255
        right = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
        if array.dtype != np.uint8 or not right or not array.size:
            raise _wrong(given, parameter, "give a path, a PIL image, bytes, or an array (h, w, 3)")
        given = Image.fromarray(np.ascontiguousarray(array))
    _limited(given, parameter, "the picture")
    file = io.BytesIO()
    plain = given if given.mode in ("RGB", "RGBA", "L", "LA", "1") else given.convert("RGB")
    plain.save(file, "PNG", compress_level=3)
    return file.getvalue()


def _decoded(data: bytes, parameter: str, name: str) -> Image.Image:
    from PIL import Image, ImageOps, UnidentifiedImageError

    if len(data) > MAX_BYTES:
        raise _wrong(name, parameter, f"at most {MAX_BYTES >> 20} MB are read")
    try:
        with warnings.catch_warnings():  # PIL warns of large images; the check below decides
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        _limited(image, parameter, name)
        image.load()
        upright = ImageOps.exif_transpose(image)
    except (ParameterError, MemoryError):
        raise
    except UnidentifiedImageError:
        message = f"{parameter}: {name} is no picture that can be read ({', '.join(FORMATS)})"
        raise ParameterError(message, parameter=parameter) from None
    except Exception as error:  # PIL's readers raise whatever the damage leads to
        reason = shown(str(error) or type(error).__name__, 100).strip("'\"")
        raise ParameterError(f"{parameter}: {name} is damaged: {reason}", parameter=parameter) from error
    if upright.mode == "P":
        upright = upright.convert("RGBA" if "transparency" in upright.info else "RGB")
    return upright


def _limited(image: Image.Image, parameter: str, name: str) -> None:
    if max(image.size) > MAX_SIDE:
        size = f"{image.width}x{image.height}"
        message = f"{parameter}: {name} has {size} pixels; at most {MAX_SIDE} a side are read"
        raise ParameterError(message, parameter=parameter)


def kept(digest: str) -> Path:
    """Where the copy of a picture with this digest lies, if there is one."""
    return cache_folder() / "attachments" / digest[:2] / digest


def _keep(data: bytes, parameter: str, *, must: bool = True) -> str:
    """Copy into the cache; the digest. `must`: there is no other copy, so a failing cache is an error."""
    digest = hashlib.sha256(data).hexdigest()
    target = kept(digest)
    if _hash(target) != digest:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic(target, overwrite=True) as file:
                file.write(data)
        except (OSError, FileError) as error:
            if must:
                message = f"{parameter} cannot be kept in {str(target.parent)!r}: {error}; set PICTURA_CACHE"
                raise ParameterError(message, parameter=parameter) from error
    return digest


def _note(digest: str, place: Path) -> None:
    """Remember where a file lies that is too large to copy; without a cache it is found by its path alone."""
    target = kept(digest).with_suffix(".path")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target, overwrite=True) as file:
            file.write(str(place.absolute()).encode("utf-8", "surrogateescape"))
    except (OSError, FileError):
        return


def _hash(path: Path) -> str | None:
    """SHA-256 of a file, None where there is none; a file of unchanged size and time is not read again."""
    try:
        state = path.stat()
        return _hashed(str(path), state.st_size, state.st_mtime_ns, state.st_ino)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _hashed(path: str, size: int, changed: int, inode: int) -> str:
    return sha256(path)


def _read(path: str) -> bytes | None:
    try:
        with Path(path).expanduser().open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError):
        return None


def _digest_of(record: Mapping[str, Any], parameter: str) -> str:
    digest = record.get("sha256")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise _wrong(digest, parameter, "a SHA-256 has 64 hexadecimal digits")
    return digest


def _wrong(given: object, parameter: str, allowed: str) -> ParameterError:
    return ParameterError(f"{parameter} is {shown(given)}; {allowed}", parameter=parameter)


def _unreadable(path: str, parameter: str) -> ParameterError:
    return ParameterError(f"{parameter}: {shown(path)} cannot be read; give another", parameter=parameter)


def _changed(path: object, parameter: str) -> ParameterError:
    message = f"{parameter}: {shown(str(path))} is another file than the request was made with; give that one"
    return ParameterError(message, parameter=parameter)


def _lost(path: object, digest: str, parameter: str) -> ParameterError:
    name = f"{shown(path)} " if path else ""
    message = f"{parameter}: the file {name}with SHA-256 {digest[:12]} is not on this machine; put it there"
    return ParameterError(message, parameter=parameter)
