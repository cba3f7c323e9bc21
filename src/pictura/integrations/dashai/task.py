"""DashAI's text-to-image task, over a folder as DashAI has it or over Pictura's history."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pictura.errors import InputError, shown
from pictura.history import History
from pictura.history.recording import own_history
from pictura.picture import Picture
from pictura.picture.files import atomic

from .base import ProcessData, TextToImageTask
from .keeping import Drawn

__all__ = ["TextToImageGenerationTask"]


class TextToImageGenerationTask(TextToImageTask):
    """One prompt in, one picture or more out; gives the answers that DashAI's own task gives.

    history: where pictures go when `process_output` is given no folder.
    """

    def __init__(self, history: History | None = None) -> None:
        self.history = history

    def prepare_for_task(self, input: Sequence[ProcessData], **kwargs: Any) -> str:
        """What the model is given: the prompt, from the row of a process that holds it.

        InputError unless there is one, and a text.
        """
        return self._prompt([(row.data, row.data_type) for row in input])

    def prepare_input_for_database(self, input: Sequence[Any], **kwargs: Any) -> list[tuple[str, str]]:
        """(data, type) of the rows to store: the prompt. InputError unless there is one, and a text."""
        kinds = [(value, "str" if isinstance(value, str) else type(value).__name__) for value in input]
        return [(self._prompt(kinds), "str")]

    def process_input_from_database(self, input: list[ProcessData], **kwargs: Any) -> list[ProcessData]:
        """Rows of inputs as the user sees them: as they are."""
        return input

    def process_output(self, output: Sequence[Any], **kwargs: Any) -> list[tuple[str, str]]:
        """(file name, "Image") of each picture, which is written as PNG into `images_path` first.

        Without `images_path` they are pictures of Pictura, and go to the history. InputError where there is
        no picture.
        """
        if not output:
            raise InputError("the model gave no picture; give it another prompt")
        folder = kwargs.get("images_path")
        return [(self._stored(image, folder), "Image") for image in output]

    def process_output_from_database(self, output: list[ProcessData], **kwargs: Any) -> list[ProcessData]:
        """Rows of outputs as the user sees them: `data` without its folder."""
        for row in output:
            row.data = os.path.basename(row.data)
        return output

    def picture(self, row: ProcessData) -> Picture:
        """The picture of an output row that `process_output` put into the history."""
        name, ending = os.path.splitext(os.path.basename(row.data))
        return self._kept().get(name if ending == ".png" else row.data).picture()

    def _prompt(self, rows: Sequence[tuple[Any, str]]) -> str:
        if len(rows) != 1:
            raise InputError(f"the task takes one text, not {len(rows)} inputs; give the prompt alone")
        data, kind = rows[0]
        if kind != "str" or not isinstance(data, str):
            raise InputError(f"the task takes a text, not {shown(kind)}; give a prompt")
        return data

    def _stored(self, image: Any, folder: str | os.PathLike[str] | None) -> str:
        if folder is None:
            entry = getattr(image, "entry", None)
            if entry is None:
                picture = image.picture if isinstance(image, Drawn) else image
                if not isinstance(picture, Picture):
                    raise InputError("the history keeps pictures of Pictura only; give images_path")
                entry = self._kept().add(picture)
            return f"{entry.id}.png"
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        name = f"{uuid.uuid4()}.png"
        with atomic(place / name, overwrite=False) as file:
            (Drawn(image) if isinstance(image, Picture) else _rgb(image)).save(file, "PNG")
        return name

    def _kept(self) -> History:
        return own_history() if self.history is None else self.history


def _rgb(image: Any) -> Image.Image:
    if not isinstance(image, Image.Image):
        raise InputError(f"the model gave {shown(type(image).__name__)} and not an image; choose another")
    return image
