"""Families: a folder each, with `FAMILY` in its `family.py`; others by the entry points `pictura.families`.

This package is light: torch is imported by a family's own modules when it is loaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast, runtime_checkable

from pictura.discovery import found
from pictura.discovery import loaded as _loaded
from pictura.errors import InputError
from pictura.levels import Level
from pictura.options import Option as Option
from pictura.request import Request

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pictura.engine import Program

    Batch = Mapping[str, Tensor]
    Note = Callable[[Level, Tensor], None]
    Networks = dict[str, nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A model with a name. Data only: `folder` (in the family's package) or `uri` says where its weights are.

    `score` is the quality it was measured at, so that a preset can be tested.
    """

    name: str
    family: str
    folder: str | None = None
    uri: str | None = None
    description: str = ""
    licence: str = ""
    sha256: str | None = None
    score: Mapping[str, float] | None = None


@runtime_checkable
class Family(Protocol):
    """A way of making pictures. Its `run` is a pure algorithm and touches no network; `evaluate` does.

    A family may also have `rows`, how many rows a pass may hold where the engine's own cap is not right;
    `resolve(request)`, which says in the common fields what the options mean, such as a size by an aspect;
    and `evaluations(request)`, how often `run` calls its note where not as often as the sampler asks.
    """

    name: ClassVar[str]
    parameters: ClassVar[frozenset[str]]  # of the common parameters and options, those it can use
    options: ClassVar[Mapping[str, Option]]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A family with random weights; PresetError when the configuration is wrong."""
        ...

    def config(self) -> dict[str, Any]:
        """The architecture as JSON values; `from_config` takes it back."""
        ...

    def defaults(self) -> dict[str, Any]:
        """The model's own num_steps, guidance_scale, sampler, schedule and size, as far as it has them."""
        ...

    def check(self, request: Request) -> None:
        """ParameterError, naming what is allowed, before any work is done."""
        ...

    def notes(self, request: Request) -> tuple[str, ...]:
        """What the user should know, such as words the model has never seen."""
        ...

    def run(self, request: Request, note: Note) -> Program:
        """The program of one picture, (1, 3, h, w) in [-1, 1]; calls `note(level, x_0)` after each step."""
        ...

    def evaluate(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """One network's answers, (b, ...) -> (b, ...); a row's answer depends on no other row."""
        ...

    def networks(self) -> Networks:
        """What can be moved, cast, saved and summarised, by name."""
        ...

    def begin_training(self, sample: Batch | None, **recipe: Any) -> Networks:
        """What is trained, by name: `networks()` and whatever training alone needs.

        `sample`, a prepared batch of some hundred examples, lets a new family measure its data; None when
        weights are there already. `recipe` are the loss options of a recipe; may be called again with others.
        """
        ...

    def prepare(self, examples: Sequence[Mapping[str, Any]]) -> Batch:
        """Examples {"images": picture, "prompts": text, ...} as tensors; draws no random numbers."""
        ...

    def loss(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """One scalar to minimise for each key, "network" or "network+network" as `begin_training` names them:
        it moves the parameters of those networks alone."""
        ...


def names() -> tuple[str, ...]:
    """Every family there is, sorted; imports none of them."""
    return tuple(_all())


def load(name: str) -> type[Family]:
    """The class of the family called `name`; ParameterError with the nearest name when there is none."""
    return cast(type[Family], _loaded("family", name, _all()))


def presets() -> dict[str, Preset]:
    """The built-in presets of all families by name, read from their `presets.py` without importing torch.

    A family may have none. One of another package that cannot be imported is left out with a warning: it
    must not take the others with it.
    """
    result: dict[str, Preset] = {}
    for name in _all():
        module = f"{package(name)}.presets"
        try:
            if find_spec(module) is not None:
                target = {name: f"{module}:PRESETS"}
                result |= cast("Mapping[str, Preset]", _loaded("family", name, target))
        except (ImportError, InputError) as error:
            if module.startswith(f"{__name__}."):
                raise
            warnings.warn(f"the presets of family {name!r} are left out: {error}", stacklevel=2)
    return result


def package(name: str) -> str:
    """The package in which the family called `name` lives; a preset's `folder` is relative to it."""
    return _all()[name].partition(":")[0].rpartition(".")[0]


def _all() -> Mapping[str, str]:
    return found("families", "FAMILY", inside="family")
