"""Learning the reward model: logistic regression on pairs, with a Gaussian prior that the pairs choose.

    sum of votes * log(1 + exp(score(loser) - score(winner))) + prior / 2 * |weights|^2

Without words (rank 0) this is convex and solved to the end; with them it begins at small random numbers. The
prior and the rank are those that predict pairs of prompts best which were left out.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pictura.errors import InputError, ParameterError, shown
from pictura.evaluation.intervals import wilson
from pictura.evaluation.reward.features import LOOKS, WORDS, looks, words
from pictura.evaluation.reward.model import Reward

__all__ = ["Pairs", "fit", "loss", "seen", "train"]

Array = NDArray[np.float64]
PRIORS, RANK = (1.0, 10.0, 100.0, 1000.0), 2
WORTH = 0.98  # words must bring the surprise down to this share, or the plain model is kept
FOLDS, INNER = 5, 3
LEAST = 8  # pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Features of n pairs: winner, loser (n, LOOKS), words (n, WORDS), votes (n,). group: (n,) whole numbers;
    pairs of one are left out together."""

    winner: Array
    loser: Array
    words: Array
    votes: Array
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.votes)

    def part(self, which: NDArray[np.bool_]) -> Pairs:
        """Those of `which`, (n,) bool."""
        return Pairs(**{name: value[which] for name, value in vars(self).items()})


def train(pairs: Iterable[Mapping[str, Any]]) -> Reward:
    """A reward model of {"images": the winner, "losers": the loser, "prompts"[, "votes"]}.

    `measured` of the result has the accuracy on held-out pairs: the prompts are cut into five parts, and each
    is predicted by a model whose every setting comes from the other four. InputError for fewer than eight.
    """
    found = seen(pairs)
    if len(found) < LEAST:
        raise InputError(
            f"there are {len(found)} pairs, too few to learn what is liked; give {LEAST} or more"
        )
    right = 0
    for part in range(FOLDS):
        out = found.group % FOLDS == part
        if out.any() and not out.all():
            rest = found.part(~out)
            right += int((_margins(fit(rest, *_chosen(rest)), found.part(out)) > 0).sum())
    low, high = wilson(right, len(found))
    prior, rank = _chosen(found)
    measured = {
        "held-out accuracy": round(right / len(found), 4),
        "95 % interval": [round(low, 4), round(high, 4)],
        "pairs": len(found),
        "prompts": len(set(found.group.tolist())),
        "prior": prior,
        "rank": rank,
    }
    made = fit(found, prior, rank)
    return Reward(**{**vars(made), "measured": measured})


def seen(pairs: Iterable[Mapping[str, Any]]) -> Pairs:
    """The features of `pairs`; a picture that comes in several is looked at once."""
    known: dict[tuple[bytes, str], int] = {}
    pictures: list[NDArray[np.uint8]] = []
    prompts: list[str] = []
    rows: list[tuple[int, int, float]] = []
    for pair in pairs:
        places = []
        for side in ("images", "losers"):
            picture = np.asarray(pair[side], dtype=np.uint8)
            key = hashlib.sha256(picture.tobytes() + repr(picture.shape).encode()).digest(), pair["prompts"]
            if key not in known:
                known[key] = len(pictures)
                pictures.append(picture)
                prompts.append(pair["prompts"])
            places.append(known[key])
        votes = pair.get("votes", 1)
        if isinstance(votes, bool) or not isinstance(votes, (int, float)) or not 0 < votes < 1e9:
            raise ParameterError(f"votes is {shown(votes)}; give a number above 0", parameter="votes")
        rows.append((places[0], places[1], float(votes)))
    features = looks(pictures, prompts)
    winners, losers = [row[0] for row in rows], [row[1] for row in rows]
    of_prompt = [prompts[at] for at in winners]
    return Pairs(
        winner=features[winners].reshape(-1, LOOKS),
        loser=features[losers].reshape(-1, LOOKS),
        words=words(of_prompt),
        votes=np.array([row[2] for row in rows]),
        group=_groups(of_prompt),
    )


def fit(pairs: Pairs, prior: float, rank: int, *, steps: int = 200) -> Reward:
    """The model that minimises `loss`, from the same start each time."""
    both = np.concatenate([pairs.winner, pairs.loser])
    mean, scale = both.mean(0), both.std(0)
    scale = np.where(scale > 1e-6 * (np.abs(mean) + 1e-6), scale, 1.0)  # what is always the same says nothing
    better, worse = (torch.from_numpy((side - mean) / scale) for side in (pairs.winner, pairs.loser))
    said, votes = torch.from_numpy(pairs.words), torch.from_numpy(pairs.votes)
    rng = torch.Generator().manual_seed(0)
    weights = [
        torch.zeros(LOOKS, dtype=torch.float64),
        0.1 * torch.randn(rank, LOOKS, generator=rng, dtype=torch.float64),
        0.1 * torch.randn(rank, WORDS, generator=rng, dtype=torch.float64),
    ]
    moved = [weight.requires_grad_() for weight in weights if weight.numel()]
    solver = torch.optim.LBFGS(
        moved, max_iter=steps, tolerance_grad=1e-8, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        solver.zero_grad()
        value = loss(better - worse, said, votes, weights, prior)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(closure)  # type: ignore[no-untyped-call]
    linear, left, right = (weight.detach().numpy() for weight in weights)
    return Reward(mean=mean, scale=scale, linear=linear, left=left, right=right)


def loss(
    apart: torch.Tensor,
    said: torch.Tensor,
    votes: torch.Tensor,
    weights: Sequence[torch.Tensor],
    prior: float,
) -> torch.Tensor:
    """What is minimised. apart: winners less losers, standardised, (n, LOOKS); weights: w, A and B."""
    linear, left, right = weights
    margin = apart @ linear + ((apart @ left.T) * (said @ right.T)).sum(1)
    size = torch.stack([weight.square().sum() for weight in weights]).sum()
    return (votes * F.softplus(-margin)).sum() + prior / 2 * size


def _chosen(pairs: Pairs) -> tuple[float, int]:
    """Prior and rank by which left-out groups are predicted best; words only where they are worth it."""
    (plain, prior), (told, other) = (
        min((_left_out(pairs, prior, rank), prior) for prior in PRIORS) for rank in (0, RANK)
    )
    return (other, RANK) if told < WORTH * plain else (prior, 0)


def _left_out(pairs: Pairs, prior: float, rank: int) -> float:
    """Surprise at pairs of groups that were left out, a third at a time."""
    total = 0.0
    order = {group: at for at, group in enumerate(sorted(set(pairs.group.tolist())))}
    place = np.array([order[group] % INNER for group in pairs.group.tolist()])
    for part in range(INNER):
        out = place == part
        if out.any() and not out.all():
            apart = pairs.part(out)
            margins = _margins(fit(pairs.part(~out), prior, rank, steps=30), apart)
            total += float((apart.votes * np.logaddexp(0, -margins)).sum())
    return total if math.isfinite(total) else math.inf


def _margins(model: Reward, pairs: Pairs) -> Array:
    return model.of(pairs.winner, pairs.words) - model.of(pairs.loser, pairs.words)


def _groups(prompts: Sequence[str]) -> NDArray[np.int64]:
    """A number for each prompt; where there are too few prompts, for each pair."""
    order = {prompt: at for at, prompt in enumerate(sorted(set(prompts), key=_mixed))}
    if len(order) < FOLDS:
        return np.arange(len(prompts))
    return np.array([order[prompt] for prompt in prompts])


def _mixed(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()
