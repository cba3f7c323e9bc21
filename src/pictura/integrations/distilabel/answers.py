"""Pictures and failures as distilabel's models answer with them: a row for each prompt, in order."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence

from pictura.errors import InputError, PicturaError
from pictura.picture import Failure, Picture
from pictura.request import Request

from .base import Row

__all__ = ["Found", "kept"]


class Found:
    """Pictures and failures of a call, put back in the order of its prompts."""

    def __init__(self, inputs: int, each: int, log: logging.Logger | None) -> None:
        self._images: list[dict[int, str]] = [{} for _ in range(inputs)]
        self._each, self._log = each, log
        self._places: list[int] = []  # of each request, the number of its prompt
        self._error: PicturaError | None = None

    def requests(
        self, inputs: Sequence[str], seeds: Sequence[int] | None, first: int | None
    ) -> list[Request]:
        """A request for each prompt that can be one."""
        if seeds is not None and len(seeds) != len(inputs):
            raise InputError(f"there are {len(seeds)} seeds for {len(inputs)} prompts; give one for each")
        made = []
        for at, prompt in enumerate(inputs):
            seed = seeds[at] if seeds is not None else None if first is None else first + at * self._each
            try:
                made.append(Request(prompt=prompt, seed=seed))
            except PicturaError as error:
                self._failed(prompt, error)
            else:
                self._places.append(at)
        return made

    def take(self, event: object) -> None:
        if isinstance(event, Picture):
            at, copy = divmod(event.index, self._each)
            encoded = base64.b64encode(event.to_bytes(".png")).decode()
            self._images[self._places[at]][copy] = encoded
        elif isinstance(event, Failure):
            self._failed(event.request.prompt, event.error)

    def rows(self) -> list[Row]:
        if self._error is not None and not any(self._images):
            raise self._error
        return [[{"images": [images[copy] for copy in sorted(images)]}] for images in self._images]

    def _failed(self, prompt: str, error: PicturaError) -> None:
        self._error = self._error or error
        _tell(self._log, prompt, error)


def kept(
    inputs: Sequence[object], answers: Sequence[Row | BaseException], log: logging.Logger | None
) -> list[Row]:
    """`answers` with {"images": []} for those that failed; the first error if all did."""
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    if errors and len(errors) == len(answers):
        raise errors[0]
    for prompt, answer in zip(inputs, answers, strict=True):
        if isinstance(answer, Exception):
            if not isinstance(answer, PicturaError):  # which is told of already
                _tell(log, prompt, answer)
        elif isinstance(answer, BaseException):
            raise answer  # cancelled or interrupted
    return [[{"images": []}] if isinstance(answer, BaseException) else answer for answer in answers]


def _tell(log: logging.Logger | None, prompt: object, error: Exception) -> None:
    (log or logging.getLogger(__name__)).warning("no picture of %.60r: %s", prompt, error)
