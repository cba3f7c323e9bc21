"""How good are the pictures?

    from pictura.evaluation import evaluate, judge

    judge(picture, "a cat left of a dog").exact        # one picture, one caption
    print(evaluate(model, count=100, out="report"))    # a model, on prompts of the grammar

One checker, scorer or metric is one file: `checkers/` say what stands where, `composition` compares that with
the caption, `scorers/` choose the best of several pictures, `metrics/` measure whole sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pictura.lazy import lazy

if TYPE_CHECKING:
    from .composition import judge
    from .run import evaluate

__all__ = ["evaluate", "judge"]
# Looked up when used, so that finding a metric or scorer does not load the rest.
__getattr__, __dir__ = lazy(__name__, {"evaluate": ".run", "judge": ".composition"})
