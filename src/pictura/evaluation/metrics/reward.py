"""How well people would like the pictures, by a reward model that was learnt from what they chose.

Name its folder as the setting "reward". Scores compare models on the same prompts: a difference of d means
that of two pictures of a prompt about sigmoid(d) of people prefer the better model's.
"""

from __future__ import annotations

from . import Metric, Sample


def measure(sample: Sample) -> float:
    """Mean score of the pictures."""
    from pictura.evaluation.reward import Reward

    scores = Reward.load(sample.settings["reward"]).score(sample.pictures, sample.prompts)
    return sum(scores) / len(scores)


METRIC = Metric(
    help="what a reward model thinks people would like, in log-odds",
    higher_is_better=True,
    measure=measure,
    needs=("reward",),
    least=1,
)
