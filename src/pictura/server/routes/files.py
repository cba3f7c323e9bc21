"""/images: the files of pictures. Their names cannot be guessed, so that no key is needed to see one."""

from __future__ import annotations

import io
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import FileResponse, Response
from PIL import Image

from pictura.errors import FileError, NotFound
from pictura.history import Entry
from pictura.picture import Picture
from pictura.server.answers import TYPES, encoded
from pictura.server.routes import service
from pictura.server.service import Service

router = APIRouter(prefix="/images", tags=["images"])

Serving = Annotated[Service, Depends(service)]
Quality = Annotated[int | None, Query(ge=0, le=100)]
FOREVER = "public, max-age=31536000, immutable"  # a picture never changes


@router.get("/{id}.png", response_class=FileResponse)
async def picture(id: str, serving: Serving) -> FileResponse:
    """The PNG, with everything that made it inside."""
    entry = await serving.entry(id)
    if not entry.path.is_file():
        raise _gone()
    return FileResponse(entry.path, media_type="image/png", headers={"cache-control": FOREVER})


@router.get("/{id}.jpeg", response_class=Response)
async def jpeg(id: str, serving: Serving, quality: Quality = None) -> Response:
    """The same as JPEG, the best one unless `quality` says otherwise."""
    return await _converted(id, serving, "jpeg", quality)


@router.get("/{id}.webp", response_class=Response)
async def webp(id: str, serving: Serving, quality: Quality = None) -> Response:
    """The same as WebP, without loss unless `quality` says otherwise."""
    return await _converted(id, serving, "webp", quality)


@router.get("/{id}/thumbnail", response_class=Response)
async def thumbnail(
    id: str, serving: Serving, width: Annotated[int, Query(ge=16, le=1024)] = 256
) -> Response:
    """A WebP at most `width` pixels wide and high."""
    entry = await serving.entry(id)
    content = await serving.thread(_small, entry, width)
    return Response(content, media_type="image/webp", headers={"cache-control": FOREVER})


async def _converted(id: str, serving: Service, kind: str, quality: int | None) -> Response:
    content = await serving.thread(encoded, await serving.entry(id), kind, quality)
    return Response(content, media_type=TYPES[kind], headers={"cache-control": FOREVER})


def _small(entry: Entry, width: int) -> bytes:
    try:
        image = Picture.open(entry.path).image
    except FileError:
        raise _gone() from None
    file = io.BytesIO()
    if max(image.size) > width:
        image = image.copy()
        image.thumbnail((width, width), Image.Resampling.LANCZOS)
    image.save(file, "WEBP", quality=85, method=2)
    return file.getvalue()


def _gone() -> NotFound:
    return NotFound("the file of this picture is gone; restore the history's images from a backup")
