"""`compile`, `fit` and `evaluate` for any family, in the shape that users of Keras know.

    for epoch: for batch: family.loss -> gradients -> optimizer        (one `trainer.update` a batch)

The loss "auto" is the family's own. A family that can also say what it predicted and what it should have
(`Predicts`) takes any other loss of a prediction and a target, and metrics.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from pictura.errors import ParameterError, TrainingError
from pictura.families import Family
from pictura.training.compiling import Compiled
from pictura.training.examples import Data, Example
from pictura.training.preference import Predicts, Preferring
from pictura.training.trainer import generator, update

__all__ = ["Callback", "History", "Teachable", "evaluate", "fit"]

Logs = dict[str, float]


@runtime_checkable
class Teachable(Protocol):
    """A family with room for words it has not seen."""

    def adapt(self, prompts: Iterable[str]) -> tuple[str, ...]:
        """Make room for the unknown words of `prompts` and return them; ParameterError where it runs out."""
        ...


class Callback:
    """Watches a `fit`. Any object with some of these methods will do.

    `model` is the `TextToImage`; set its `stop_training` to end after the current epoch. `logs` are means of
    the epoch so far.
    """

    model: Any = None

    def set_model(self, model: Any) -> None:
        self.model = model

    def on_train_begin(self, logs: Logs | None = None) -> None: ...
    def on_train_end(self, logs: Logs | None = None) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None: ...
    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...


@dataclass
class History(Callback):
    """What `fit` returns: `history["loss"]` has one number an epoch, and so has `history["val_loss"]`."""

    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    new_words: tuple[str, ...] = ()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


def fit(
    family: Family,
    data: Data,
    compiled: Compiled,
    *,
    model: Any,
    device: torch.device,
    epochs: int,
    batch_size: int,
    validation: Data | None,
    callbacks: Sequence[object],
    shuffle: bool,
    seed: int,
    measure: bool,
    verbose: bool,
) -> History:
    """Train `family` in place. measure: its weights are random, so let it measure its data first.

    The same data, seed and weights give the same training. TrainingError where the loss is no number.
    """
    history = History()
    if isinstance(family, Teachable) and data.indexed:
        history.new_words = family.adapt(data.prompts())
    sample = family.prepare(next(data.batches(800), [])) if measure else None
    networks = family.begin_training(sample)
    told = _Told([*callbacks, history], model)
    optimizers: dict[str, torch.optim.Optimizer] | None = None
    for module in networks.values():
        module.to(device).train()
    try:
        told("on_train_begin")
        for epoch in range(epochs):
            told("on_epoch_begin", epoch)
            means = _Means()
            order = torch.randperm(len(data), generator=generator(seed, epoch)) if data.indexed else None
            in_order = order.tolist() if order is not None and shuffle else None
            for number, examples in enumerate(data.batches(batch_size, in_order)):
                told("on_train_batch_begin", number)
                batch = _batch(family, examples, device)
                rng = generator(seed, epoch, number)
                if optimizers is None:
                    optimizers = compiled.optimizers(networks, _keys(family, compiled, batch))
                watched = _Watched(family, compiled, means, tuple(optimizers), len(examples))
                update(cast(Family, watched), networks, optimizers, batch, rng, compiled.clip)
                told("on_train_batch_end", number, means.now())
            if optimizers is None:
                raise ParameterError("data is empty; give at least one example", parameter="data")
            logs = means.now()
            if validation is not None:
                held_out = evaluate(family, validation, compiled, device=device, batch_size=batch_size)
                logs |= {f"val_{name}": value for name, value in held_out.items()}
                for module in networks.values():
                    module.train()
            told("on_epoch_end", epoch, logs)
            if verbose:
                values = "  ".join(f"{name} {value:.5g}" for name, value in logs.items())
                print(f"epoch {epoch + 1}/{epochs}  {values}", file=sys.stderr, flush=True)
            if getattr(model, "stop_training", False):
                break
        told("on_train_end")
    finally:
        for module in networks.values():
            module.eval()
    return history


def evaluate(
    family: Family, data: Data, compiled: Compiled, *, device: torch.device, batch_size: int, seed: int = 0
) -> Logs:
    """Mean loss and metrics over `data`, the same every time for the same weights."""
    networks = family.begin_training(None)
    for module in networks.values():
        module.to(device).eval()
    means = _Means()
    with torch.no_grad():
        for number, examples in enumerate(data.batches(batch_size)):
            batch = _batch(family, examples, device, teach=False)
            keys = ("all",)  # nothing is updated, so nobody asks which networks a loss is for
            _Watched(family, compiled, means, keys, len(examples)).loss(batch, generator(seed, number))
    return means.now()


class _Watched:
    """A family whose loss is the compiled one, and is noted down. `keys`: what a compiled loss updates."""

    def __init__(
        self, family: Family, compiled: Compiled, means: _Means, keys: tuple[str, ...], rows: int
    ) -> None:
        self._family, self._compiled, self._means = family, compiled, means
        self._keys, self._rows = keys, rows

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        criterion, metrics = self._compiled.loss, self._compiled.metrics
        before = rng.get_state()
        losses = {} if criterion is not None else self._family.loss(batch, rng)
        if criterion is not None or metrics:
            rng.set_state(before)  # the metrics see the same times and noise
            with torch.set_grad_enabled(criterion is not None and torch.is_grad_enabled()):
                prediction, target = cast(Predicts, self._family).predict(batch, rng)
            if criterion is not None:
                losses = dict.fromkeys(self._keys, criterion(prediction, target))
            for name, metric in metrics.items():
                self._note(name, metric(prediction.detach(), target.detach()))
        if isinstance(self._family, Preferring):
            for name in ("accuracy", "margin"):
                self._note(name, self._family.logs[name])
        for key, loss in losses.items():
            if not torch.isfinite(loss):
                raise TrainingError(f"the loss became {loss.item()}; use a smaller learning_rate")
            if len(losses) > 1:
                self._note(f"loss/{key}", loss)
        self._note("loss", torch.stack([loss.detach() for loss in losses.values()]).sum())
        return losses

    def _note(self, name: str, value: Tensor) -> None:
        self._means.add(name, value.item(), self._rows)


class _Means:
    """Means over the examples seen so far, by name."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, name: str, value: float, rows: int) -> None:
        total, count = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + value * rows, count + rows

    def now(self) -> Logs:
        loss_first = sorted(self._sums, key=lambda name: (name != "loss", name))
        return {name: self._sums[name][0] / self._sums[name][1] for name in loss_first}


class _Told:
    """Calls a method on every callback that has it."""

    def __init__(self, callbacks: Sequence[object], model: Any) -> None:
        self._callbacks = callbacks
        for callback in callbacks:
            getattr(callback, "set_model", lambda model: None)(model)

    def __call__(self, name: str, *arguments: object) -> None:
        for callback in self._callbacks:
            method = getattr(callback, name, None)
            if method is not None:
                method(*arguments)


def _batch(family: Family, examples: Sequence[Example], device: torch.device, *, teach: bool = True) -> Any:
    if teach and isinstance(family, Teachable):
        family.adapt(str(example["prompts"]) for example in examples)
    pictures = [picture for row in examples for picture in (row["images"], row.get("losers"))]
    sizes = {picture.size for picture in pictures if isinstance(picture, Image.Image)}
    if len(sizes) > 1:
        raise ParameterError(
            f"the pictures have different sizes, {sorted(sizes)}; scale them", parameter="data"
        )
    return {name: value.to(device) for name, value in family.prepare(examples).items()}


def _keys(family: Family, compiled: Compiled, batch: Mapping[str, Tensor]) -> list[str]:
    """What the family's loss updates; only one network, or several as one, can follow another loss."""
    with torch.no_grad():
        keys = list(family.loss(batch, generator(0)))
    if compiled.loss is not None and len(keys) > 1:
        raise ParameterError(
            f"family {family.name!r} trains networks against each other; use loss='auto'", parameter="loss"
        )
    return keys
