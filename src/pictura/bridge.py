"""Any pipeline of diffusers that Pictura has no family for, with Pictura's requests, seeds and driver.

A pipeline is one long call. Here it runs in a thread of its own that stops after every step until the engine
asks for the next one, so that it can be watched, cancelled and shared with other requests like any program.
Each picture has a copy of the pipeline with a scheduler of its own and the same networks, since a pipeline
keeps what it is doing in itself.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from pictura.engine import Ask, Program
from pictura.errors import CheckpointError, EngineError, ParameterError, PresetError, TrainingError, shown
from pictura.levels import Level
from pictura.options import Option
from pictura.request import Request

__all__ = ["NAME", "Pipeline"]

NAME = "diffusers"
# By our names, theirs; what is not among a pipeline's parameters it cannot use.
_COMMON = {
    "negative_prompt": "negative_prompt",
    "num_steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
}
# Ours to give, no pictures, or objects that no request can hold.
_OURS = {"self", "prompt", "height", "width", "generator", "output_type", "return_dict",
         "num_images_per_prompt", "callback_steps", *_COMMON.values()}  # fmt: skip
_CALLBACKS = (
    "callback_on_step_end",
    "callback",
)  # how a pipeline tells of its steps: today's and the old way
_SIMPLE: tuple[type[bool] | type[int] | type[float] | type[str], ...] = (bool, int, float, str)


class Pipeline:
    """The contract of a family, as far as a pipeline keeps it: it draws, and is neither trained nor saved."""

    name: ClassVar[str] = NAME
    rows: ClassVar[int] = 1  # a question is "go on with this picture"

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        signature = inspect.signature(type(pipeline).__call__).parameters
        self._defaults = {name: p.default for name, p in signature.items()}
        self.options: Mapping[str, Option] = _options(type(pipeline))
        common = {ours for ours, theirs in _COMMON.items() if theirs in signature}
        sized = {"size"} if {"height", "width"} <= signature.keys() else set()
        self.parameters = frozenset({*common, *sized, *self.options})
        self._callback = next((name for name in _CALLBACKS if name in signature), None)
        self._works: dict[int, _Work] = {}
        self._numbers = itertools.count()

    @classmethod
    def open(
        cls, folder: Path, class_name: str, *, dtype: torch.dtype = torch.float32, variant: str | None = None
    ) -> Pipeline:
        """Load a folder with diffusers: safetensors only, nothing downloaded, no code of the folder's own.

        PresetError where diffusers is not installed or has no pipeline of that name, or it draws no pictures
        from text; CheckpointError for files that diffusers refuses.
        """
        kind = _class(class_name, folder)
        if "prompt" not in inspect.signature(kind.__call__).parameters:
            raise PresetError(
                f"{str(folder)!r} holds {class_name}, which takes no prompt; choose another model"
            )
        safe = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
        try:
            with _quiet():
                loaded = kind.from_pretrained(str(folder), torch_dtype=dtype, variant=variant, **safe)
        except Exception as error:  # diffusers and transformers raise many kinds
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise CheckpointError(f"diffusers cannot load {str(folder)!r}: {reason[0]}") from error
        loaded.set_progress_bar_config(disable=True)
        return cls(loaded)

    def config(self) -> dict[str, Any]:
        return {"pipeline": type(self.pipeline).__name__}

    def defaults(self) -> dict[str, Any]:
        """The pipeline's own; its size is its own secret where nobody gives one."""
        known = {ours: self._defaults[theirs] for ours, theirs in _COMMON.items() if ours in self.parameters}
        return {name: value for name, value in known.items() if value is not None}

    def check(self, request: Request) -> None:
        """Nothing: what a pipeline refuses it refuses when it is called."""

    def notes(self, request: Request) -> tuple[str, ...]:
        return ()

    def evaluations(self, request: Request) -> int | None:
        """Steps that will be told."""
        return request.num_steps if self._callback else None

    def run(self, request: Request, note: Callable[[Level, Tensor], None]) -> Program:
        """The pipeline's call, a step for each question."""
        assert request.seed is not None  # the task completed the request
        number = next(self._numbers)
        work = self._works[number] = _Work(self._call(request), self._callback)
        total, steps = request.num_steps or 1, 0
        try:
            while True:
                (answer,) = yield (Ask("pipeline", {"work": torch.tensor([number])}),)
                if work.done:
                    return answer
                steps += 1
                share = max(1 - steps / total, 0.0)
                note(Level(1 - share, share), answer)
        finally:
            del self._works[number]
            work.cancel()

    def evaluate(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """ "pipeline": the numbers of works (b,) -> after one more step of each, a look at its latents or the
        picture (b, 3, h, w)."""
        return torch.cat([self._works[int(number)].step() for number in inputs["work"]])

    def networks(self) -> dict[str, nn.Module]:
        parts = self.pipeline.components.items()
        return {name: part for name, part in parts if isinstance(part, nn.Module)}

    def begin_training(self, sample: Any, **recipe: Any) -> dict[str, nn.Module]:
        raise self._untrained()

    def prepare(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        raise self._untrained()

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        raise self._untrained()

    def _untrained(self) -> TrainingError:
        return TrainingError(
            f"{type(self.pipeline).__name__} comes through diffusers, which Pictura does not train; "
            "train it with diffusers' own scripts"
        )

    def _call(self, request: Request) -> Callable[..., Any]:
        """The pipeline's call with everything but the callback."""
        said = {
            theirs: value
            for ours, theirs in _COMMON.items()
            if ours in self.parameters and (value := getattr(request, ours)) is not None
        }
        if request.size is not None and "size" in self.parameters:
            said["width"], said["height"] = request.size
        said |= {
            name: value
            for name, value in request.options.items()
            if name in self.options and value is not None
        }
        alone = self._alone()
        generator = torch.Generator().manual_seed(request.seed)  # type: ignore[arg-type]

        def call(**more: Any) -> Any:
            return alone(prompt=request.prompt, generator=generator, output_type="pil", **said, **more)

        return call

    def _alone(self) -> Any:
        """The same networks in a pipeline of its own, with a new scheduler."""
        parts = dict(self.pipeline.components)
        for name, part in parts.items():
            if hasattr(part, "config") and hasattr(part, "set_timesteps"):
                parts[name] = type(part).from_config(part.config)
        optional = {name: self.pipeline.config[name] for name in self._settings() if name not in parts}
        copy = type(self.pipeline)(**parts, **optional)
        copy.set_progress_bar_config(disable=True)
        return copy

    def _settings(self) -> list[str]:
        """Arguments of the constructor that are values, as a pipeline's configuration keeps them."""
        names = inspect.signature(type(self.pipeline).__init__).parameters
        return [name for name in names if name != "self" and name in self.pipeline.config]


class _Stop(BaseException):
    """Thrown into a pipeline that nobody waits for any more; nothing in between is to catch it."""


class _Work:
    """A pipeline's call in a thread that goes on only while somebody waits in `step`."""

    def __init__(self, call: Callable[..., Any], callback: str | None) -> None:
        self.done = False
        self._call, self._callback = call, callback
        self._go, self._told = threading.Semaphore(0), threading.Semaphore(0)
        self._answer: Tensor | None = None
        self._error: Exception | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    def step(self) -> Tensor:
        """Let it go on until its next step or its end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pipeline", daemon=True)
            self._thread.start()
        self._go.release()
        self._told.acquire()
        if self._error is not None:
            raise self._error
        assert self._answer is not None  # told is one or the other
        return self._answer

    def cancel(self) -> None:
        """End it where it is; returns when it has ended."""
        self._stopped = True
        if self._thread is not None and not self.done:
            self._go.release()
            self._thread.join()

    def _work(self) -> None:
        self._go.acquire()
        try:
            pause = {"callback_on_step_end": self._pause, "callback": self._old_pause}
            found = self._call(**{name: pause[name] for name in pause if name == self._callback}).images[0]
            picture = torch.from_numpy(np.array(found.convert("RGB"))).permute(2, 0, 1)[None]
            self._answer = picture.float() / 127.5 - 1
        except _Stop:
            return
        except ValueError as error:  # how pipelines refuse what they are given
            self._error = ParameterError(f"the pipeline refuses: {_line(error)}", parameter="options")
            self._error.__cause__ = error
        except Exception as error:
            self._error = (
                error
                if isinstance(error, MemoryError)
                else EngineError(
                    f"the pipeline failed ({type(error).__name__}: {_line(error)}); try other parameters"
                )
            )
            self._error.__cause__ = error
        self.done = True
        self._told.release()

    def _pause(self, pipeline: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        self._old_pause(step, time, values.get("latents"))
        return values

    def _old_pause(self, step: int, time: Any, latents: Any) -> None:
        self._answer = _look(latents)
        self._told.release()
        self._go.acquire()
        if self._stopped:
            raise _Stop


def _look(latents: Any) -> Tensor:
    """A rough look at latents, (1, 3, h, w) in [-1, 1]: their first channels, if they are a picture's."""
    if not isinstance(latents, Tensor) or latents.ndim != 4:
        return torch.zeros(1, 3, 8, 8)
    x = latents[:1].float().cpu()
    x = x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
    return (x / x.abs().amax().clamp_min(1e-6)).clamp(-1, 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars that both libraries draw while they read files."""
    import diffusers
    import transformers

    bars = [library.utils.logging for library in (diffusers, transformers)]
    shown_before = [bar.is_progress_bar_enabled() for bar in bars]
    for bar in bars:
        bar.disable_progress_bar()
    try:
        yield
    finally:
        for bar, before in zip(bars, shown_before, strict=True):
            if before:
                bar.enable_progress_bar()


def _class(name: str, folder: Path) -> Any:
    try:
        import diffusers
    except ImportError:
        raise PresetError(
            f"{str(folder)!r} holds {shown(name)}, which needs diffusers; pip install 'pictura[diffusers]'"
        ) from None
    found = getattr(diffusers, name, None) if name.isidentifier() else None
    if not (isinstance(found, type) and issubclass(found, diffusers.DiffusionPipeline)):
        raise PresetError(
            f"{str(folder)!r} holds {shown(name)}, which neither Pictura nor diffusers "
            f"{diffusers.__version__} knows; choose another model"
        )
    return found


def _options(kind: type) -> dict[str, Option]:
    """The pipeline's other parameters that are plain values, as options."""
    try:
        hints = get_type_hints(kind.__call__)
    except Exception:  # annotations of optional libraries that are not there
        hints = {}
    result = {}
    for name, parameter in inspect.signature(kind.__call__).parameters.items():
        if name in _OURS or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        plain = _plain(hints.get(name), parameter.default)
        if plain is not None:
            default = parameter.default if isinstance(parameter.default, plain) else None
            result[name] = Option(
                name=name, type=plain, default=default, help=f"See {kind.__name__} in diffusers."
            )
    return result


def _plain(hint: Any, default: Any) -> type[bool] | type[int] | type[float] | type[str] | None:
    """bool, int, float or str, where a parameter takes just that (or None)."""
    if type(default) in _SIMPLE:
        return type(default)
    kinds = {a for a in get_args(hint) if a is not type(None)} if get_origin(hint) in _UNIONS else {hint}
    if kinds == {int, float}:
        return float
    return next((kind for kind in _SIMPLE if kinds == {kind}), None)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_UNIONS = (Union, type(int | str))
