"""What people like: a small model that scores pictures, learnt from pairs of which one was preferred.

    from pictura.evaluation import reward
    from pictura.training.examples import read

    liking = reward.train(read("preferences", pairs=True))
    liking.save("liking")                                   # a folder: config.json, model.safetensors, card
    model.generate("a cat", best_of=8, scorer="./liking")

`features` says what it sees of picture and prompt, `model` how it scores, `fitting` how it learns.
"""

from __future__ import annotations

from pictura.evaluation.reward.fitting import train
from pictura.evaluation.reward.model import Reward

__all__ = ["Reward", "train"]
