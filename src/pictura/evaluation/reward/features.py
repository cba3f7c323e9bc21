"""What the reward model sees: numbers about a picture, about its prompt, and about the two together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pictura.datasets.scenes.grammar import CaptionError, parse
from pictura.evaluation.checkers.detector import FEATURES, SIZE, as_input, trained
from pictura.evaluation.scorers.scene_detector import likelihood

__all__ = ["LOOKS", "WORDS", "looks", "words"]

Array = NDArray[np.float64]
PLAIN = (
    10  # means and spreads of three colours, colourfulness, sharpness, shape, how far it shows its caption
)
LOOKS = FEATURES + PLAIN
WORDS = 32  # prompts are hashed to so many numbers
LEAST = -60.0  # log-likelihood of a scene below which it makes no difference
ROWS = 64


def looks(pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> Array:
    """(n, LOOKS) of pictures (h, w, 3) uint8 of any sizes, each with its prompt.

    The detector's 144 features, averages over the picture; plain statistics; and, where the prompt is the
    caption of a scene, the log-likelihood that the detector sees that scene, else 0.
    """
    parts = [
        _looks(pictures[at : at + ROWS], prompts[at : at + ROWS]) for at in range(0, len(pictures), ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, LOOKS))


def words(prompts: Sequence[str]) -> Array:
    """(n, WORDS): the words of each prompt and its pairs of neighbours, hashed with signs (Weinberger et al.
    2009), of unit length; an empty prompt is all zeros."""
    result = np.zeros((len(prompts), WORDS))
    for row, prompt in zip(result, prompts, strict=True):
        said = re.findall(r"\w+", prompt.lower())
        for term in (*said, *map(" ".join, zip(said, said[1:], strict=False))):
            code = int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "big")
            row[code // 2 % WORDS] += 1 if code % 2 else -1
        row /= np.linalg.norm(row) or 1
    return result


def _looks(pictures: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> Array:
    small = np.stack([_small(picture) for picture in pictures])
    with torch.no_grad():
        inputs = as_input(small)
        seen = trained().features(inputs).double().numpy()
        answers = zip(*trained()(inputs), strict=True)
    shown = [_shows(prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    shape = [np.log(picture.shape[1] / picture.shape[0]) for picture in pictures]
    return np.concatenate([seen, _plain(small), np.stack([shape, shown], 1)], 1)


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.BOX))


def _plain(small: NDArray[np.uint8]) -> Array:
    """(n, 8): mean and spread of each colour, colourfulness (Hasler and Suesstrunk 2003), sharpness."""
    x = small.astype(np.float64) / 255
    red, green, blue = np.moveaxis(x, 3, 0)
    opponent = np.stack([red - green, (red + green) / 2 - blue])
    spread, away = opponent.std((2, 3)), opponent.mean((2, 3))
    colourful = np.hypot(*spread) + 0.3 * np.hypot(*away)
    gray = x.mean(3)
    edges = np.abs(np.diff(gray, axis=1)).mean((1, 2)) + np.abs(np.diff(gray, axis=2)).mean((1, 2))
    rest = np.stack([colourful, np.log(edges + 1e-3)], 1)
    return np.concatenate([x.mean((1, 2)), x.std((1, 2)), rest], 1)


def _shows(prompt: str, *answer: torch.Tensor) -> float:
    try:
        return max(likelihood(parse(prompt), *answer), LEAST)
    except CaptionError:
        return 0.0
