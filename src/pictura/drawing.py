"""Complete requests in, events out: programs on an engine that all calls on a model share."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pictura import samplers
from pictura.engine import Engine, Ticket
from pictura.errors import EngineError, InputError, NotNumbers, PicturaError
from pictura.families import Family
from pictura.inputs import WINDOW, Item
from pictura.levels import Flow, Level
from pictura.picture import Event, Failure, Picture, Preview, Step
from pictura.request import Request

__all__ = ["Studio", "Told"]


class Studio:
    """A family with the weights it has now, and its engine, which remembers answers of theirs.

    Calls from several threads share forward passes; any of them may do the work. Networks compute in `dtype`
    on `device`; everything between them is float32 on the CPU. digest: of the weights, None until known.
    """

    def __init__(
        self,
        family: Family,
        *,
        device: torch.device,
        dtype: torch.dtype,
        exact: bool = False,
        digest: str | None = None,
    ) -> None:
        self.family = family
        self.digest = digest
        self._weights = _state(family)
        self._placed = _Placed(family, device, dtype)
        self._engine = Engine(self._placed, rows=getattr(family, "rows", None), exact=exact)
        self._lock = threading.Lock()

    def outdated(self) -> bool:
        """Whether someone has changed a weight since, so that a new studio is needed."""
        return self._weights != _state(self.family)

    def draw(self, items: Iterator[Item], *, window: int = WINDOW, previews: bool = False) -> Iterator[Event]:
        """Steps, previews and pictures as they come; one that fails is a Failure and disturbs no other.

        At most `window` items are read ahead. An error of `items` itself is raised once the pictures
        before it are done. Closing the iterator cancels what is unfinished.
        """
        told: deque[Told] = deque()
        live: dict[int, Ticket] = {}
        broken: InputError | None = None
        more = True
        try:
            while live or more:
                while more and len(live) < window:
                    try:
                        item = next(items, None)
                    except InputError as error:
                        item, broken = None, error
                    if item is None:
                        more = False
                    else:
                        live[item.index] = self.start(item, told)
                self.step()
                while told:
                    what = told.popleft()
                    event = self.event(what)
                    if isinstance(event, (Picture, Failure)):
                        del live[event.index]
                    yield event
                    if previews and what.x0 is not None:
                        with suppress(EngineError):  # a step with values that are no numbers has no picture
                            yield what.preview()
            if broken is not None:
                raise broken
        finally:
            if live:
                for ticket in live.values():
                    ticket.cancel()
                self.step()

    def step(self) -> None:
        """Every picture that was started advances by one question to the networks."""
        with self._lock:
            self._engine.step()

    def start(self, item: Item, told: deque[Told]) -> Ticket:
        """Begin a picture; what happens to it is appended to `told`, maybe by another thread."""
        started = time.perf_counter()
        total, step = _evaluations(item.request, self.family), 0

        def note(level: Level, x0: Tensor) -> None:
            nonlocal step
            step += 1
            told.append(Told(item, Step(index=item.index, step=step, total=total), x0=x0))

        def done(ticket: Ticket) -> None:
            told.append(Told(item, ticket, seconds=time.perf_counter() - started))

        return self._engine.add(self.family.run(item.request, note), on_done=done)

    def event(self, told: Told) -> Step | Picture | Failure:
        """What was told, as whoever asked for the picture is to see it."""
        return _event(told, self.family, self.digest)

    @property
    def passes(self) -> int:
        """How many forward passes there were."""
        return self._placed.passes

    @property
    def rows(self) -> int:
        """How many questions they answered."""
        return self._placed.rows


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened to a picture on its way; `x0` is what it looked like then, (1, 3, h, w)."""

    item: Item
    what: Step | Ticket
    x0: Tensor | None = None
    seconds: float = 0.0

    def preview(self) -> Preview:
        """A picture of `x0`, for a step."""
        assert isinstance(self.what, Step) and self.x0 is not None
        step = self.what
        return Preview(index=step.index, step=step.step, total=step.total, image=_image(self.x0))


class _Placed:
    """The family as the engine sees it: questions go to the device and dtype, answers come back."""

    def __init__(self, family: Family, device: torch.device, dtype: torch.dtype) -> None:
        self._family, self._device, self._dtype = family, device, dtype
        self.passes = self.rows = 0

    def evaluate(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        self.passes += 1
        self.rows += len(next(iter(inputs.values())))
        # One number a row is a time or a scale, which half precision would round to another.
        placed = {
            name: x.to(self._device, self._dtype if x.is_floating_point() and x.ndim > 1 else x.dtype)
            for name, x in inputs.items()
        }
        answer = self._family.evaluate(net, variant, **placed)
        return answer.to("cpu", torch.float32 if answer.is_floating_point() else answer.dtype)


def _event(told: Told, family: Family, digest: str | None) -> Step | Picture | Failure:
    item, ticket = told.item, told.what
    if isinstance(ticket, Step):
        return ticket
    try:
        if ticket.error is not None:
            raise ticket.error
        assert ticket.result is not None  # a ticket that is done has one or the other
        return Picture(
            image=_image(ticket.result),
            request=item.request,
            model_digest=digest,
            timings={"total": told.seconds},
            ignored=item.ignored,
            notes=family.notes(item.request),
            index=item.index,
        )
    except PicturaError as error:
        return Failure(index=item.index, request=item.request, error=error)
    except Exception as error:
        wrapped = EngineError(f"the picture failed while it was made ({type(error).__name__}: {error})")
        wrapped.__cause__ = error
        return Failure(index=item.index, request=item.request, error=wrapped)


def _image(x: Tensor) -> Image.Image:
    """(1, 3, h, w) in [-1, 1], values beyond cut off; EngineError where they are not numbers."""
    if not torch.isfinite(x).all():
        raise NotNumbers(
            "the picture came out as values that are no numbers; "
            "use a smaller guidance_scale, or dtype 'float32'"
        )
    pixels = ((x[0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def _state(family: Family) -> Hashable:
    """Equal as long as nobody changed a weight: torch counts the writes to each tensor."""
    networks = family.networks().values()
    tensors = [tensor for net in networks for tensor in net.state_dict(keep_vars=True).values()]
    return tuple((id(tensor), tensor._version) for tensor in tensors)


def _evaluations(request: Request, family: Family) -> int | None:
    """How often the sampler will ask, counted by a dry run; None for models that have no sampler."""
    known = getattr(family, "evaluations", None)
    if known is not None:
        count: int | None = known(request)
        return count
    if request.sampler is None or request.num_steps is None:
        return None
    return samplers.evaluations(request.sampler, Flow().levels(request.num_steps))
