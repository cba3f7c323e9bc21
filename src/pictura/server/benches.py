"""How a worker draws: on an engine of its own, or by asking a service that is somewhere else."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from pictura import samplers
from pictura.errors import Cancelled, PicturaError
from pictura.inputs import Item, Model, complete
from pictura.options import Option
from pictura.picture import Failure, Picture, Preview, Step
from pictura.request import Request
from pictura.server.outside import refuse_names

if TYPE_CHECKING:
    from pictura.drawing import Told

__all__ = ["Bench", "Seen", "open_bench"]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What happened to a picture; `look` gives what a step looked like, where anybody wants to know."""

    key: int
    event: Step | Picture | Failure
    look: Callable[[], Image.Image] | None = None


class Bench(Protocol):
    """Several pictures at once, each known by the key that it was started with; at most `slots`."""

    slots: int

    def start(self, key: int, request: Request) -> None:
        """Begin a picture; ParameterError for what the model cannot do."""
        ...

    def cancel(self, key: int) -> None:
        """Nobody wants it any more; a Failure may still be seen."""
        ...

    def step(self) -> Iterator[Seen]:
        """Go on with all of them for a moment; what happened."""
        ...

    def describe(self) -> dict[str, Any]:
        """What requests may say, as JSON values; see `description`."""
        ...

    def counts(self) -> dict[str, int]:
        """Forward passes and the questions they answered, since the start."""
        ...


def open_bench(name: str, place: str) -> Bench:
    """A bench for the model at `place`, which pictures are to record as `name`. Loads the weights.

    PresetError, CheckpointError and what else loading raises.
    """
    from pictura import presets

    return _Far(place) if presets.remote(place) is not None else _Here(name, place)


def description(model: Model, **more: Any) -> dict[str, Any]:
    """What a form needs to know of a model: which parameters it uses, its defaults and choices."""
    options = {option.name: _option(option) for option in model.family.options.values()}
    usable = model.family.parameters
    return {
        "parameters": sorted(usable | {"prompt"}),
        "options": {name: said for name, said in options.items() if name in usable},
        "defaults": _plain(model.defaults),
        "seeds": model.seeds,
        "samplers": list(samplers.names()) if "sampler" in usable else [],
        **more,
    }


def _option(option: Option) -> dict[str, Any]:
    return {
        "type": option.type.__name__,
        "default": option.default,
        "help": option.help,
        "choices": list(option.choices),
        "attach": option.attach,
    }


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _look(told: Told) -> Image.Image:
    return told.preview().image


def _same(image: Image.Image) -> Image.Image:
    return image


class _Here:
    """Weights in this process, and one engine for all requests."""

    def __init__(self, name: str, place: str) -> None:
        from pictura import loading
        from pictura.drawing import Studio

        loaded = loading.load(place)
        loaded.name = name
        self._model = Model(name=name, family=loaded.family, defaults=loaded.defaults())
        self._digest = loaded.digest or loading.digest(loaded)
        self._studio = Studio(loaded.family, device=loaded.device, dtype=loaded.dtype, digest=self._digest)
        self._device, self._dtype = str(loaded.device), str(loaded.dtype).removeprefix("torch.")
        # So many fill the passes; with more each would only wait longer for its end.
        self.slots = 8 if loaded.device.type == "cpu" else 64
        self._told: deque[Told] = deque()
        self._tickets: dict[int, Any] = {}

    def start(self, key: int, request: Request) -> None:
        refuse_names(request, self._model.family.options)
        done, ignored = complete(request, self._model)
        self._tickets[key] = self._studio.start(Item(index=key, request=done, ignored=ignored), self._told)

    def cancel(self, key: int) -> None:
        if key in self._tickets:
            self._tickets[key].cancel()

    def step(self) -> Iterator[Seen]:
        self._studio.step()
        while self._told:
            told = self._told.popleft()
            event = self._studio.event(told)
            if isinstance(event, Step):
                yield Seen(key=event.index, event=event, look=partial(_look, told))
            else:
                del self._tickets[event.index]
                yield Seen(key=event.index, event=event)

    def describe(self) -> dict[str, Any]:
        family: Any = self._model.family
        size = self._model.defaults.get("size")
        fixed = not hasattr(family, "multiple")
        sizes = {
            "fixed": list(size) if fixed and size else None,
            "multiple": getattr(family, "multiple", None),
        }
        facts = {"digest": self._digest, "device": self._device, "dtype": self._dtype}
        return description(self._model, family=family.name, sizes=sizes, **facts)

    def counts(self) -> dict[str, int]:
        return {"passes": self._studio.passes, "rows": self._studio.rows}


class _Far:
    """A model behind a service: a thread for each picture, since they only wait."""

    def __init__(self, place: str) -> None:
        from pictura.task import RemoteTextToImage, TextToImage

        model = TextToImage.from_preset(place)
        assert isinstance(model, RemoteTextToImage)
        self._drawn, self._seen = model, deque[Seen]()
        self._gone: dict[int, threading.Event] = {}
        self.slots = 64
        self._calls = 0

    def start(self, key: int, request: Request) -> None:
        refuse_names(request, self._drawn._model.family.options)
        events = self._drawn.stream(request.amended(model=None))
        self._gone[key] = gone = threading.Event()
        self._calls += 1
        threading.Thread(target=self._work, args=(key, request, events, gone), daemon=True).start()

    def cancel(self, key: int) -> None:
        if key in self._gone:
            self._gone[key].set()

    def step(self) -> Iterator[Seen]:
        if not self._seen:
            time.sleep(0.005)
        while self._seen:
            seen = self._seen.popleft()
            if not isinstance(seen.event, Step):
                self._gone.pop(seen.key, None)
            yield seen

    def describe(self) -> dict[str, Any]:
        known = self._drawn._model
        return description(known, family="remote", sizes={"fixed": None, "multiple": None})

    def counts(self) -> dict[str, int]:
        return {"passes": self._calls, "rows": self._calls}

    def _work(self, key: int, request: Request, events: Iterator[Any], gone: threading.Event) -> None:
        ended: Picture | Failure | None = None
        try:
            for event in events:
                if gone.is_set():
                    raise Cancelled("the picture was cancelled before it was finished")
                if isinstance(event, Preview):
                    step = Step(index=key, step=event.step, total=event.total)
                    self._seen.append(Seen(key=key, event=step, look=partial(_same, event.image)))
                elif isinstance(event, Step):
                    self._seen.append(Seen(key=key, event=event))
                else:
                    ended = event
        except PicturaError as error:
            ended = Failure(index=key, request=request, error=error)
        assert ended is not None  # a call for one picture ends with it or without
        self._seen.append(Seen(key=key, event=ended))
