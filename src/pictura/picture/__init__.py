"""What comes out: pictures that know how they were made, and the events on the way to them."""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pictura import __version__
from pictura.errors import FileError, ParameterError, PicturaError
from pictura.picture.files import atomic
from pictura.picture.metadata import Metadata, load, read_metadata, save_arguments
from pictura.request import Request

__all__ = ["Event", "Failure", "Picture", "Pictures", "Preview", "Step", "file_name", "read_metadata"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """An RGB image and all it takes to make it again.

    index: its place among the pictures of one call. model_digest: of the weights, or None where nobody knows
    them (remote models). timings: seconds by name. ignored: parameters that the model could not use.
    notes: what the user should know about it.
    """

    image: Image.Image
    request: Request
    model_digest: str | None = None
    version: str = __version__
    timings: Mapping[str, float] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    index: int = 0

    def amended(self, **values: Any) -> Picture:
        """This picture with other values: a faster `dataclasses.replace`."""
        new: Picture = object.__new__(type(self))
        new.__dict__.update(self.__dict__, **values)
        return new

    @classmethod
    def open(cls, file: str | os.PathLike[str] | bytes) -> Picture:
        """A saved picture (its path, or the file's content) with the request that made it; FileError where
        the file does not say.
        """
        image, found = load(file)
        if found.request is None:
            name = "the content" if isinstance(file, bytes) else repr(str(file))
            raise FileError(f"{name} does not say how it was made; open it as a plain image instead")
        return cls(
            image=image,
            request=found.request,
            model_digest=found.model_digest,
            version=found.version or "",
            ignored=found.ignored,
            notes=found.notes,
        )

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write a .png, .jpg, .jpeg or .webp that holds the request; whole or not at all. Returns the path.

        FileError where `path` exists (unless `overwrite`), has another ending or its folder is missing.
        """
        path = Path(path)
        kind, arguments = save_arguments(path.suffix, self._metadata())
        with atomic(path, overwrite=overwrite) as file:
            self.image.convert("RGB").save(file, kind, **arguments)
        return path

    def to_bytes(self, suffix: str = ".png", quality: int | None = None) -> bytes:
        """The file that `save` would write. quality: of JPEG and WebP, 0..100, in place of the best."""
        kind, arguments = save_arguments(suffix, self._metadata())
        if quality is not None and kind != "PNG":
            arguments = {"exif": arguments["exif"], "xmp": arguments["xmp"], "quality": quality}
        buffer = io.BytesIO()
        self.image.convert("RGB").save(buffer, kind, **arguments)
        return buffer.getvalue()

    def _metadata(self) -> Metadata:
        return Metadata(
            source="pictura",
            size=self.image.size,
            request=self.request,
            model_digest=self.model_digest,
            version=self.version,
            ignored=self.ignored,
            notes=self.notes,
        )

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """uint8 (h, w, 3)."""
        return _converted(np.array(self.image.convert("RGB"), np.uint8), dtype)

    def __repr__(self) -> str:
        width, height = self.image.size
        prompt = self.request.prompt if len(self.request.prompt) <= 60 else self.request.prompt[:57] + "..."
        return f"<Picture {width}x{height} {prompt!r} seed={self.request.seed}>"

    def _repr_png_(self) -> bytes:
        """Jupyter shows this."""
        return self.to_bytes()


@dataclass(frozen=True, kw_only=True)
class Step:
    """Picture `index` has done `step` of `total` steps (None where nobody knows how many there will be)."""

    index: int
    step: int
    total: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Preview:
    """What picture `index` looks like after `step` steps."""

    index: int
    step: int
    total: int | None
    image: Image.Image


@dataclass(frozen=True, kw_only=True, eq=False)
class Failure:
    """Picture `index` could not be made; its neighbours are not affected."""

    index: int
    request: Request
    error: PicturaError


Event = Step | Preview | Picture | Failure


class Pictures(Sequence[Picture]):
    """Pictures in the order of the inputs."""

    def __init__(self, pictures: Sequence[Picture] = ()) -> None:
        self._pictures = list(pictures)

    @overload
    def __getitem__(self, at: int) -> Picture: ...
    @overload
    def __getitem__(self, at: slice) -> Pictures: ...
    def __getitem__(self, at: int | slice) -> Picture | Pictures:
        return Pictures(self._pictures[at]) if isinstance(at, slice) else self._pictures[at]

    def __len__(self) -> int:
        return len(self._pictures)

    def __repr__(self) -> str:
        return f"<Pictures {self._pictures!r}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """uint8 (n, h, w, 3); ValueError where the sizes differ."""
        if not self._pictures:
            return _converted(np.zeros((0, 0, 0, 3), np.uint8), dtype)
        return _converted(np.stack([np.asarray(picture) for picture in self._pictures]), dtype)

    def grid(self, columns: int | None = None, gap: int = 2) -> Image.Image:
        """All of them on one sheet, row by row, `gap` white pixels apart."""
        if not self._pictures:
            raise ParameterError("there are no pictures to lay out; make one first", parameter="pictures")
        columns = columns or math.ceil(math.sqrt(len(self)))
        width = max(picture.image.width for picture in self) + gap
        height = max(picture.image.height for picture in self) + gap
        rows = math.ceil(len(self) / columns)
        sheet = Image.new("RGB", (min(columns, len(self)) * width - gap, rows * height - gap), "white")
        for at, picture in enumerate(self):
            sheet.paste(picture.image, (at % columns * width, at // columns * height))
        return sheet

    def save(
        self, folder: str | os.PathLike[str], suffix: str = ".png", overwrite: bool = False
    ) -> list[Path]:
        """Write each into `folder`, which is made if need be, as `file_name` says; the paths in order."""
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            raise FileError(f"folder {str(folder)!r} cannot be made: {error}") from error
        paths: list[Path] = []
        for picture in self:
            name = file_name(picture, suffix)
            again = sum(path.name == name or path.stem.startswith(f"{Path(name).stem}~") for path in paths)
            paths.append(folder / (f"{Path(name).stem}~{again + 1}{suffix}" if again else name))
        return [picture.save(path, overwrite) for picture, path in zip(self, paths, strict=True)]

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.grid().save(buffer, "PNG")
        return buffer.getvalue()


class Collected:
    """Pictures put in order as they come; the first failure is raised when all is done."""

    def __init__(self, on_step: Callable[[Step], object] | None = None) -> None:
        self._pictures: dict[int, Picture] = {}
        self._failures: dict[int, Failure] = {}
        self._on_step = on_step

    def take(self, event: Event) -> None:
        if isinstance(event, Picture):
            self._pictures[event.index] = event
        elif isinstance(event, Failure):
            self._failures[event.index] = event
        elif isinstance(event, Step) and self._on_step is not None:
            self._on_step(event)

    def result(self, single: bool) -> Picture | Pictures:
        pictures = Pictures([self._pictures[index] for index in sorted(self._pictures)])
        if self._failures:
            error = self._failures[min(self._failures)].error
            error.pictures = pictures
            raise error
        return pictures[0] if single else pictures


def file_name(picture: Picture, suffix: str = ".png") -> str:
    """A name for the picture's file: its prompt, as far as file systems like it, and its seed.

    Where the model has no seeds, the first digits of the pixels' digest stand for it.
    """
    words = re.sub(r"[^\w]+", "-", picture.request.prompt.lower()).strip("-_")
    short = words.encode()[:80].decode(errors="ignore").rstrip("-_")
    if picture.request.seed is None:
        mark = hashlib.sha256(picture.image.convert("RGB").tobytes()).hexdigest()[:8]
    else:
        mark = str(picture.request.seed)
    return f"{short or 'picture'}-{mark}{suffix}"


def _converted(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    return array if dtype is None else array.astype(dtype)
