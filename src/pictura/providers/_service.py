"""What the providers of this package share: what a request may say, and pictures out of answers.

A service is a class over `Service` that says where it is, which keys it knows, what it can pass on, and how
a request becomes calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from PIL import Image

from pictura.errors import ParameterError, ProviderError
from pictura.options import Option
from pictura.picture import Failure, Picture
from pictura.providers._asking import Asking
from pictura.providers._bodies import from_base64, said
from pictura.providers._calls import Flow, Work
from pictura.providers._images import decoded
from pictura.request import MAX_SEED, Request

__all__ = ["Found", "Service"]

_AWAY = 200_000  # bytes of a picture's file from which on it is decoded off the event loop
_PICTURES = frozenset({"image", "mask", "reference", "control"})  # options that mean files elsewhere
# What services call the number of pictures, or of pieces of an answer: that is for us to say.
_COUNTS = frozenset({"n", "n_iter", "batch_size", "num_outputs", "numberOfImages", "sampleCount", "stream"})


class Service(Asking):
    """A remote model: how it is asked, see `Asking`, and what it can be asked for."""

    parameters: frozenset[str]  # of the common ones; with "seed" where the service takes one
    options: ClassVar[Mapping[str, Option]] = {}
    passes_on: ClassVar[bool] = True  # whether options that are not listed are sent as they are
    max_seed: ClassVar[int] = 2**32 - 1
    seeded: ClassVar[bool] = True  # whether a seed is drawn where none is given
    previews: ClassVar[bool] = False  # whether `run` takes previews=True

    def check(self, request: Request) -> None:
        """ParameterError, naming what is allowed, before anything is sent."""
        if request.seed is not None and request.seed > self.max_seed:
            raise ParameterError(
                f"seed is {request.seed}; {self.who} takes up to {self.max_seed}", parameter="seed"
            )
        for name in _PICTURES & request.options.keys() - self.options.keys() if request.options else ():
            if not str(request.options[name]).startswith(("https://", "http://", "data:")):
                raise ParameterError(
                    f"{name} is given, and {self.who} is sent none; leave it out, or give an address that "
                    "the service fetches itself",
                    parameter=name,
                )
        if "mask" in request.options and "image" not in request.options and "mask" in self.options:
            raise ParameterError("mask says what of a picture may change; give image too", parameter="mask")
        for name in _COUNTS & request.options.keys() if request.options else ():
            raise ParameterError(
                f"{name} is how the service counts pictures; give num_images, and each has its own place",
                parameter=name,
            )

    def per_call(self, request: Request) -> int:
        """How many pictures of a request `run` can make together, with the seeds that follow."""
        return 1

    def drawn(
        self, request: Request, found: Sequence[Found], count: int = 1, *, answer: object = None
    ) -> Flow[list[Picture]]:
        """The pictures that an answer holds or names, each told the moment it is there.

        One that cannot be had is told as a Failure, since its neighbours are paid for; ProviderError where
        there is none at all, with what the `answer` says. What is there beyond the `count` that were asked
        for comes first, so that the others can say so; what would have to be fetched is fetched after them.
        """
        made, failed = [], []

        def turn(index: int) -> tuple[bool, bool, int]:
            here = found[index].content is not None
            return not here, here and index < count, index

        for index in sorted(range(len(found)), key=turn) if len(found) > 1 else range(len(found)):
            entry = found[index]
            try:
                if entry.reason is not None:
                    raise self.error(f"drew nothing: {entry.reason}")
                content = entry.content
                if content is None:
                    content = yield from self.fetch(entry.url)
                picture = yield from self.picture(request, content, entry, index)
            except ProviderError as error:
                failed.append(Failure(index=index, request=request, error=error))
            else:
                made.append(picture)
                yield picture
        if not made:
            words = said(answer)
            nothing = self.error(f"answered without a picture{f': {words}' if words else ''}")
            raise failed[0].error if failed else nothing
        yield from failed
        return made

    def picture(self, request: Request, content: bytes | str, entry: Found, index: int = 0) -> Flow[Picture]:
        """The picture in a file (or its base64), with what the service said of it."""

        damaged = None
        try:
            if len(content) > _AWAY:
                work = Work(partial(_read, content))
                yield work
                image = work.result
            else:
                image = _read(content)
        except ProviderError as error:
            damaged = self.error(f"answered with {error}")
        if damaged is not None:  # raised here, so that it does not carry the service's words as they came
            raise damaged
        notes = [self.shown(note) for note in entry.notes if note]
        changes: dict[str, Any] = {}
        seed = entry.seed
        if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed <= MAX_SEED:
            if request.seed not in (None, seed) and index == 0:
                notes.append(f"the service used seed {seed}")
            changes["seed"] = seed
        if "size" in self.parameters:
            if request.size is None and "size" not in entry.changes:
                changes["size"] = image.size
            elif request.size not in (None, image.size):
                notes.append(f"the service drew {image.width}x{image.height}")
        if entry.changes:
            filled = {name: value for name, value in entry.changes.items() if not self.holds_key(value)}
            request = replace(request, **filled)
        if changes:
            request = request.amended(**changes)
        return Picture(image=image, request=request, notes=tuple(notes), index=index)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A picture in an answer: its file, or base64 of it, or its address; or the reason why there is none.

    seed: what the service says it used. changes: fields of the request as the service carried it out.
    """

    content: bytes | str | None = None
    url: object = None
    reason: str | None = None
    seed: object = None
    notes: Sequence[str] = ()
    changes: Mapping[str, Any] = field(default_factory=dict)


def _read(content: bytes | str) -> Image.Image:
    return decoded(from_base64(content) if isinstance(content, str) else content)
