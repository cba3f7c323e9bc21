"""The page at / and its files below /static/. They hold nothing of anybody's: no key is needed."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import FileResponse

from pictura.errors import NotFound, shown
from pictura.web import FOLDER, HEADERS, INDEX

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> FileResponse:
    """The page."""
    return FileResponse(INDEX, headers=HEADERS)


@router.get("/static/{path:path}")
async def file(path: str) -> FileResponse:
    """One of its files; NotFound for whatever is not in the folder."""
    place = FOLDER / path
    if "\0" in path or not place.resolve().is_relative_to(FOLDER.resolve()) or not place.is_file():
        raise NotFound(f"there is no file {shown(path)} here")
    return FileResponse(place, headers=HEADERS)
