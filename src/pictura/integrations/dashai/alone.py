"""The task without DashAI: processes over Pictura's history, which keeps parameters and seeds of each.

done = run("a cat", PicturaScenes, {"seed": 0})
done.output[0].data                        # "<id>.png", a picture of the history
TextToImageGenerationTask().picture(done.output[0])
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pictura.history import History
from pictura.history.jobs import Job, Jobs
from pictura.history.recording import own_history
from pictura.request import Request

from .base import ProcessData
from .keeping import OWNER
from .models import Offered
from .task import TextToImageGenerationTask

__all__ = ["Process", "processes", "run"]

_STATUS = {"queued": "delivered", "running": "started", "done": "finished"}  # else "error"


@dataclass(frozen=True, kw_only=True)
class Process:
    """A prompt that was given to a model, and what came of it.

    status: delivered, started, finished or error. input, output: rows as DashAI's database has them; of an
    error what it was. requests: one for each picture that was asked for, with its own seed.
    """

    id: str
    status: str
    made_at: int
    input: tuple[ProcessData, ...]
    output: tuple[ProcessData, ...]
    requests: tuple[Request, ...]


def run(
    prompt: str,
    model: type[Offered],
    parameters: Mapping[str, Any] | None = None,
    *,
    history: History | None = None,
) -> Process:
    """Give `prompt` to a model with the parameters of a session, by the steps of DashAI's own jobs.

    What the model fails at is an error in the process. ParameterError and InputError for what no model can be
    given; DatabaseError, FileError where the history (None: the user's own) cannot be used.
    """
    store = own_history() if history is None else history
    task = TextToImageGenerationTask(store)
    rows = [
        ProcessData(data=data, data_type=kind) for data, kind in task.prepare_input_for_database([prompt])
    ]
    made = model(**parameters or {})
    made.history = store
    found = made.made(task.prepare_for_task(rows), strict=True)
    assert found.job is not None
    return _process(Jobs(store), Jobs(store).get(found.job))


def processes(history: History | None = None, *, limit: int = 50) -> list[Process]:
    """The newest first, those of DashAI's own sessions on the same history too."""
    jobs = Jobs(own_history() if history is None else history)
    return [_process(jobs, job) for job in jobs.newest(owner=OWNER, limit=limit)]


def _process(jobs: Jobs, job: Job) -> Process:
    requests = jobs.requests(job.id)

    def row(data: str, kind: str, is_input: bool) -> ProcessData:
        return ProcessData(data=data, data_type=kind, is_input=is_input)

    outputs = [row(f"{entry.id}.png", "Image", False) for entry in job.images]
    if not outputs:
        outputs = [row(f"Error details: {failed.error}", "str", False) for failed in job.failures[:1]]
    return Process(
        id=job.id,
        status=_STATUS.get(job.status, "error"),
        made_at=job.made_at,
        input=(row(requests[0].prompt, "str", True),),
        output=tuple(outputs),
        requests=requests,
    )
