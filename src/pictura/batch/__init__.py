"""Data sets of pictures: many prompts in, each picture exactly once out, whatever happens on the way.

    from pictura import batch

    batch.run("prompts.txt", "out", model="scenes", seed=7)

`run` can be killed at any moment; the same call goes on with what is not done and ends with the same files.
"""

from __future__ import annotations

from pictura.batch.running import follow, run
from pictura.batch.work import Progress, Report

__all__ = ["Progress", "Report", "follow", "run"]
