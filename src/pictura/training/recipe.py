"""A training recipe: a TOML file that says everything but where the results go."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pictura.errors import TrainingError


class Stage(BaseModel):
    """From `start` samples on, these data and loss options replace the earlier ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(default=0, ge=0)
    data: dict[str, Any] = {}
    loss: dict[str, Any] = {}


class Optimizer(BaseModel):
    """AdamW. `scale` multiplies the rate of parameters whose "network.name" starts with a key. The rate
    rises over `warmup` steps, is constant, and falls linearly to 0 over the last `decay` share of samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float | dict[str, float] = 1e-3  # one, or one for each key of the family's loss
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    warmup: int = Field(default=200, ge=0)
    decay: float = Field(default=0.35, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    scale: dict[str, float] = {}


class Recipe(BaseModel):
    """What is trained on what, for how long and how; `samples` are pictures seen, `batch` of them a step.

    A `family` of this `architecture` begins with random weights; `start`, a preset folder or a built-in name,
    instead of these with its own. beta: learn from pairs, by `preference.DPO`, of which `batch` are a step.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: str = ""
    start: str | None = None
    beta: float | None = Field(default=None, gt=0)
    data: str
    samples: int = Field(gt=0)
    batch: int = Field(gt=0)
    processes: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    seed: int = 0
    ema: float = Field(default=0.998, ge=0, lt=1)
    compile: bool = False
    device: str = "cpu"
    log_every: int = Field(default=50, gt=0)
    save_minutes: float = Field(default=3.0, gt=0)
    grid_minutes: float = Field(default=10.0, gt=0)
    grid: tuple[str, ...] = ()
    architecture: dict[str, Any] = {}
    optimizer: Optimizer = Optimizer()
    stages: tuple[Stage, ...] = (Stage(),)

    @model_validator(mode="after")
    def _one_beginning(self) -> Self:
        if bool(self.family) == (self.start is not None):
            raise ValueError("give either family or start, a preset to begin with")
        if self.start is not None and self.architecture:
            raise ValueError("architecture is that of start; leave it out")
        return self

    def stage(self, done: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """(data options, loss options) in force after `done` samples."""
        data: dict[str, Any] = {}
        loss: dict[str, Any] = {}
        for stage in self.stages:
            if stage.start <= done:
                data.update(stage.data)
                loss.update(stage.loss)
        return data, loss

    def rate(self, step: int, done: int) -> float:
        """Factor on the learning rate at `step` (0..) after `done` samples."""
        o = self.optimizer
        warm = min(1.0, (step + 1) / o.warmup) if o.warmup else 1.0
        left = (self.samples - done) / max(1.0, self.samples * o.decay)
        return warm * min(1.0, max(0.0, left))


def parse(table: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from its table; TrainingError naming `where` and the key that is wrong."""
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"{'.'.join(map(str, first['loc']))}: " if first["loc"] else "")
        raise TrainingError(f"{where}: {key}{first['msg'].lower()}") from None


def read(path: str | Path) -> Recipe:
    """Raises TrainingError naming the file and the key that is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        return parse(tomllib.loads(text), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"recipe {path} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(f"recipe {path} is not TOML: {error}") from None
