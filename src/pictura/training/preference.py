"""Direct preference optimisation of models that denoise: Diffusion-DPO (Wallace et al. 2023, eq. 14).

Of two pictures of one prompt somebody liked the first, w, better than the second, l. With e(x) the model's
squared error on x at a random time with random noise, and r(x) that of the model as it was before,

    loss = -log sigmoid(-beta / 2 [(e(w) - r(w)) - (e(l) - r(l))])

The paper writes e and r as errors of predicted noise. Here they are the mean square of what the family itself
is trained on: the noise for Stable Diffusion, the velocity (x - z) / (1 - t) for `scenes`, SD3 and FLUX, as
Liu et al. 2025 ("Flow-DPO", constant beta) have it for flows. The paper's T omega is in beta. Winner and
loser, model and reference see the same times and noise.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.errors import ParameterError, shown
from pictura.families import Family

__all__ = ["DPO", "Predicts", "Preferring"]


@runtime_checkable
class Predicts(Protocol):
    """A family whose loss is the mean squared difference of these two, up to terms for extra supervision."""

    def predict(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """(prediction, target), of one shape, (b, ...)."""
        ...


@dataclass(frozen=True, kw_only=True)
class DPO:
    """beta: how closely the model is held to what it was. It weighs mean squared errors, so it depends on
    what those are: 200 suits `scenes`; the paper used 2000 to 5000 for Stable Diffusion."""

    beta: float = 200.0

    def __post_init__(self) -> None:
        number = isinstance(self.beta, (int, float)) and not isinstance(self.beta, bool)
        if not (number and 0 < self.beta < 1e9):
            raise ParameterError(f"beta is {shown(self.beta)}; give a number above 0", parameter="beta")


class Preferring:
    """A family as the trainer knows it, learning from pairs. What it is now is the reference from now on.

    An example is {"images": the winner, "losers": the loser, "prompts": their text} and may have "votes", how
    many said so: a pair counts as often in the mean. `logs` after a loss:
    "dpo" itself; "accuracy", the share of pairs that the model ranks as people did by how much its errors
    fell; "margin", by how much more they fell on winners.
    """

    def __init__(self, family: Family, how: DPO) -> None:
        if not isinstance(family, Predicts):
            raise ParameterError(
                f"family {family.name!r} cannot learn from preferences: it brings its own loss; "
                "use loss='auto'",
                parameter="loss",
            )
        self.family, self.beta, self.name = family, how.beta, family.name
        self.reference = copy.deepcopy(family)
        for module in self.reference.networks().values():
            module.requires_grad_(False).eval()
        self.logs: dict[str, Tensor] = {}
        self._key: str | None = None

    def begin_training(self, sample: Mapping[str, Tensor] | None, **recipe: Any) -> dict[str, nn.Module]:
        """The networks of the family; the reference follows its recipe too, and only that."""
        self.reference.begin_training(None, **recipe)
        return self.family.begin_training(sample, **recipe)

    def prepare(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Winners as "winner/NAME", losers as "loser/NAME", NAME as the family has it; "votes" (b,)."""
        batch = {"votes": torch.tensor([_votes(example) for example in examples])}
        for side, column in (("winner", "images"), ("loser", "losers")):
            rows = [{"images": example[column], "prompts": example["prompts"]} for example in examples]
            batch |= {f"{side}/{name}": value for name, value in self.family.prepare(rows).items()}
        return batch

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        """The loss above for the networks that the family's own loss moves."""
        sides = [
            {name.removeprefix(side): value for name, value in batch.items() if name.startswith(side)}
            for side in ("winner/", "loser/")
        ]
        if self._key is None:
            self._key = self._moved(sides[0])
        before = rng.get_state()
        winner, loser = (self._errors(self.family, side, rng, before) for side in sides)
        with torch.no_grad():
            for module in self.reference.networks().values():
                module.to(winner.device)
            winner_before, loser_before = (self._errors(self.reference, side, rng, before) for side in sides)
        margin = (loser - loser_before) - (winner - winner_before)
        share = batch["votes"] / batch["votes"].sum()
        loss = (share * -F.logsigmoid(self.beta / 2 * margin)).sum()
        self.logs = {
            "dpo": loss.detach(),
            "accuracy": (share * (margin > 0)).sum(),
            "margin": (share * margin.detach()).sum(),
        }
        return {self._key: loss}

    def _errors(
        self, family: Family, side: Mapping[str, Tensor], rng: torch.Generator, state: Tensor
    ) -> Tensor:
        """Mean squared error of each row, (b,), with the random numbers that begin at `state`."""
        rng.set_state(state)
        prediction, target = cast(Predicts, family).predict(side, rng)
        return (prediction - target).square().flatten(1).mean(1)

    def _moved(self, side: Mapping[str, Tensor]) -> str:
        with torch.no_grad():
            keys = list(self.family.loss(side, torch.Generator().manual_seed(0)))
        if len(keys) > 1:
            raise ParameterError(
                f"family {self.name!r} trains networks against each other; use loss='auto'", parameter="loss"
            )
        return keys[0]


def _votes(example: Mapping[str, Any]) -> float:
    said = example.get("votes", 1)
    try:
        votes = float(said)
    except (TypeError, ValueError):
        votes = 0.0
    if not 0 < votes < 1e9:
        raise ParameterError(f"votes is {shown(said)}; give a number above 0", parameter="votes")
    return votes
