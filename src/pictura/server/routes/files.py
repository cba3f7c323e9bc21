"""/images: the files of pictures. Their names cannot be guessed, so that no key is needed to see one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import FileResponse

from pictura.errors import NotFound
from pictura.server.routes import service
from pictura.server.service import Service

router = APIRouter(prefix="/images", tags=["images"])

FOREVER = "public, max-age=31536000, immutable"  # a picture never changes


@router.get("/{id}.png")
async def picture(id: str, serving: Annotated[Service, Depends(service)]) -> FileResponse:
    """The PNG with everything that made it."""
    entry = await serving.entry(id)
    if not entry.path.is_file():
        raise NotFound("the file of this picture is gone; restore the history's images from a backup")
    return FileResponse(entry.path, media_type="image/png", headers={"cache-control": FOREVER})
