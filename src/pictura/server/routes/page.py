"""The page at / and its files below /static/. They hold nothing of anybody's: no key is needed."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import FileResponse

from pictura.errors import NotFound, shown
from pictura.web import FOLDER, HEADERS, INDEX

router = APIRouter(tags=["page"])

FREE: dict[str, Any] = {"security": []}  # for everybody


@router.get("/", response_class=FileResponse, openapi_extra=FREE)
async def page() -> FileResponse:
    """The page."""
    return FileResponse(INDEX, headers=HEADERS)


@router.get("/static/{path:path}", response_class=FileResponse, openapi_extra=FREE)
async def file(path: str) -> FileResponse:
    """One of its files; NotFound for whatever is not in the folder."""
    place = FOLDER / path
    try:
        inside = "\0" not in path and place.resolve().is_relative_to(FOLDER.resolve()) and place.is_file()
    except OSError:  # a name that no file can have
        inside = False
    if not inside:
        raise NotFound(f"there is no file {shown(path)} here")
    return FileResponse(place, headers=HEADERS)
