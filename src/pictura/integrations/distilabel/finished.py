"""What is drawn already: a folder with a small file for each finished row of a pipeline."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pictura.errors import FileError
from pictura.picture.files import atomic

__all__ = ["Finished", "digest"]


def digest(said: object) -> str:
    """A name for `said`, made of JSON's values or what can be written as text."""
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


class Finished:
    """Pictures, as base64, by a digest of all that decides them. A file is there whole or not at all."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder).expanduser().absolute()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"keep_in is {folder!r}, which is no folder ({error.strerror})") from error

    def get(self, name: str) -> list[str]:
        """The pictures of that name, [] where there are none."""
        try:
            found = json.loads(self._path(name).read_bytes())
        except (OSError, ValueError):
            return []
        return found if isinstance(found, list) else []

    def put(self, name: str, images: list[str]) -> None:
        """FileError where it cannot be written."""
        path = self._path(name)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise FileError(f"{path.parent} cannot be made ({error.strerror}); make room for it") from error
        with atomic(path, overwrite=True) as file:
            file.write(json.dumps(images).encode())

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / f"{name}.json"
