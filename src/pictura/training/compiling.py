"""How to train: optimizer, loss and metrics, by name or as objects, checked before any work is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.errors import ParameterError, did_you_mean, shown
from pictura.families import Family
from pictura.training.preference import DPO, Predicts, Preferring
from pictura.training.trainer import parameters

__all__ = ["Compiled", "Criterion"]

Criterion = Callable[[Tensor, Tensor], Tensor]
_LOSSES: Mapping[str, Criterion] = {
    "mse": F.mse_loss,
    "mean_squared_error": F.mse_loss,
    "mae": F.l1_loss,
    "mean_absolute_error": F.l1_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
    "smooth_l1": F.smooth_l1_loss,
}
_OPTIMIZERS = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name != "Optimizer"
}
_RATE, _CLIP = 3e-4, 1.0


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """How to train. Built by `of`, which refuses what cannot be used."""

    optimizer: Any  # "auto", a class, a function of parameters, or an instance
    loss: Criterion | None  # None: the family's own
    dpo: DPO | None  # instead of a loss: learn from pairs
    metrics: Mapping[str, Criterion]
    learning_rate: float | None = None
    clip: float = _CLIP

    @classmethod
    def of(
        cls,
        family: Family,
        optimizer: object = "auto",
        loss: object = "auto",
        metrics: object = "auto",
        *,
        learning_rate: float | None = None,
        clip: float = _CLIP,
    ) -> Compiled:
        """ParameterError naming what is not possible for `family`."""
        if learning_rate is not None and not (_is_number(learning_rate) and 0 < learning_rate < 100):
            raise ParameterError(
                f"learning_rate is {shown(learning_rate)}; give a number above 0", parameter="learning_rate"
            )
        if not (_is_number(clip) and clip > 0):
            raise ParameterError(f"clip is {shown(clip)}; give a number above 0", parameter="clip")
        if isinstance(optimizer, torch.optim.Optimizer) and learning_rate is not None:
            raise ParameterError(
                "learning_rate is given beside an optimizer that has its own; give one of them",
                parameter="learning_rate",
            )
        dpo = DPO() if loss == "dpo" else loss if isinstance(loss, DPO) else None
        if dpo is not None and metrics not in ("auto", None):
            raise ParameterError(
                "metrics compare a prediction with what it should be, which pairs do not tell; "
                "use metrics='auto' with loss='dpo'",
                parameter="metrics",
            )
        criterion = None if loss == "auto" or dpo else _criterion("loss", loss)
        found = {} if dpo else _metrics(metrics, isinstance(family, Predicts))
        if (criterion is not None or found) and not isinstance(family, Predicts):
            what = "loss" if criterion is not None else "metrics"
            raise ParameterError(
                f"family {family.name!r} brings its own loss; use {what}='auto'", parameter=what
            )
        return cls(
            optimizer=_optimizer(optimizer),
            loss=criterion,
            dpo=dpo,
            metrics=found,
            learning_rate=learning_rate,
            clip=clip,
        )

    def taught(self, family: Family) -> Family:
        """What the trainer trains: `family`, or for pairs a `Preferring` that remembers how it is now."""
        return family if self.dpo is None else cast(Family, Preferring(family, self.dpo))

    def optimizers(
        self, networks: Mapping[str, nn.Module], keys: Iterable[str]
    ) -> dict[str, torch.optim.Optimizer]:
        """One for the networks of each key of the family's loss; an instance serves them all."""
        if isinstance(self.optimizer, torch.optim.Optimizer):
            return dict.fromkeys(keys, self.optimizer)
        rate: dict[str, Any] = {} if self.learning_rate is None else {"lr": self.learning_rate}
        made: dict[str, torch.optim.Optimizer] = {}
        for key in keys:
            own = list(parameters(networks, key).values())
            if self.optimizer == "auto":
                made[key] = torch.optim.AdamW(own, **{"lr": _RATE, "weight_decay": 0.0, **rate})
            else:
                made[key] = self.optimizer(own, **rate)
        return made


def _optimizer(given: object) -> Any:
    if isinstance(given, str) and given != "auto":
        if given.lower() not in _OPTIMIZERS:
            raise ParameterError(
                f"optimizer {shown(given)} is unknown; {did_you_mean(given, ['auto', *_OPTIMIZERS])}",
                parameter="optimizer",
            )
        return _OPTIMIZERS[given.lower()]
    if given == "auto" or isinstance(given, torch.optim.Optimizer) or callable(given):
        return given
    raise ParameterError(
        f"optimizer is {shown(given)}; give a name, a torch.optim.Optimizer or a function of the parameters",
        parameter="optimizer",
    )


def _criterion(what: str, given: object) -> Criterion:
    if isinstance(given, str):
        if given not in _LOSSES:
            hint = did_you_mean(given, ["auto", *_LOSSES, *(["dpo"] if what == "loss" else [])])
            raise ParameterError(f"{what} {shown(given)} is unknown; {hint}", parameter=what)
        return _LOSSES[given]
    if callable(given):
        return cast(Criterion, given() if isinstance(given, type) else given)
    raise ParameterError(
        f"{what} is {shown(given)}; give a name or a function of (prediction, target)", parameter=what
    )


def _metrics(given: object, predicts: bool) -> dict[str, Criterion]:
    if given == "auto":
        return {"mse": F.mse_loss} if predicts else {}
    if given is None:
        return {}
    listed = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    return {_name(metric): _criterion("metrics", metric) for metric in listed}


def _name(metric: object) -> str:
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__).lower()


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
