"""Pictures that stay what they are wherever they are saved, and a record of each with all that made it."""

from __future__ import annotations

import io
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.PngImagePlugin import PngImageFile
from sqlalchemy import select

from pictura.errors import Cancelled, PicturaError
from pictura.history import Entry, History
from pictura.history.claims import Claims, Progress, Task
from pictura.history.database import begin
from pictura.history.jobs import Jobs
from pictura.history.tables import jobs, tasks
from pictura.picture import Event, Failure, Picture
from pictura.request import Request

__all__ = ["OWNER", "Drawn", "Made", "made"]

OWNER = "dashai"  # of the jobs that are processes
LEASE = 600.0  # seconds in which nobody else begins what this process has begun
RENEWED = 30.0  # seconds between two signs of life

_log = logging.getLogger(__name__)


class Drawn(PngImageFile):
    """A picture as a Pillow image. Saved as PNG it is the file that `Picture.save` writes, which tells how it
    was made, unless it was painted over.

    entry: what it is in the history, if it is kept there.
    """

    def __init__(self, picture: Picture, entry: Entry | None = None) -> None:
        self._png = picture.to_bytes()
        super().__init__(io.BytesIO(self._png))
        self.load()
        self._pixels = self.tobytes()
        self.picture = picture
        self.entry = entry

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """As every image does it."""
        name = fp if isinstance(fp, (str, bytes, os.PathLike)) else ""
        kind = (format or os.path.splitext(os.fsdecode(name))[1].lstrip(".")).upper()
        if kind != "PNG" or params or self.tobytes() != self._pixels:
            super().save(fp, format, **params)
        elif name:
            with open(name, "wb") as file:
                file.write(self._png)
        else:
            fp.write(self._png)


@dataclass(frozen=True, kw_only=True)
class Made:
    """What became of the requests of a process: its pictures in order, and what kept others from being made.
    job: what it is in the history, None where that does not know it."""

    job: str | None
    images: list[Drawn]
    errors: list[PicturaError]


def made(
    history: History | None,
    requests: Sequence[Request],
    draw: Callable[[], Iterator[Event]],
    *,
    strict: bool = False,
) -> Made:
    """What `draw` gives for `requests`, each of them a task of one job in `history`.

    A history that cannot be used is DatabaseError or FileError if `strict`; else it costs no picture.
    """
    record = _Record(history, requests, strict)
    images: dict[int, Drawn] = {}
    errors: list[PicturaError] = []
    try:
        for event in draw():
            if isinstance(event, Picture):
                images[event.index] = Drawn(event, record.finish(event))
            elif isinstance(event, Failure):
                errors.append(event.error)
                record.fail(event.index, event.error)
            else:
                record.live(event.index, event.step, event.total)
    except PicturaError as error:
        errors.append(error)
        record.end(error)
    except BaseException:
        record.end(Cancelled("it was stopped before it was done"))
        raise
    return Made(job=record.job, images=[images[index] for index in sorted(images)], errors=errors)


class _Record:
    """The job in the history, if there is one that can be used."""

    def __init__(self, history: History | None, requests: Sequence[Request], strict: bool) -> None:
        self._strict = strict
        self._said = time.monotonic()
        self._claims = None if history is None else Claims(history)
        worker = f"{_here()}{os.getpid()}"
        mine = self._try(lambda claims: claims.take(worker, requests, lease=LEASE, owner=OWNER)) or ()
        if history is not None:
            self._try(lambda claims: cancel_orphans(history))
        self._open: dict[int, Task] = {task.index: task for task in mine}
        self.job: str | None = mine[0].job if mine else None

    def live(self, index: int, step: int, total: int | None) -> None:
        """Tell how far a picture is, now and then."""
        if index in self._open and time.monotonic() - self._said > RENEWED:
            self._said = time.monotonic()
            told = [Progress(task=self._open[index], step=step, steps=total)]
            told += [Progress(task=t, step=0, steps=None) for i, t in self._open.items() if i != index]
            self._try(lambda claims: claims.progress(told, LEASE))

    def finish(self, picture: Picture) -> Entry | None:
        task = self._open.pop(picture.index, None)
        return None if task is None else self._try(lambda claims: claims.finish(task, picture))

    def fail(self, index: int, error: PicturaError) -> None:
        task = self._open.pop(index, None)
        if task is not None:
            self._try(lambda claims: claims.fail(task, error))

    def end(self, error: PicturaError) -> None:
        """Nothing more is made."""
        for index in list(self._open):
            self.fail(index, error)

    def _try(self, work: Callable[[Claims], Any]) -> Any:
        if self._claims is None:
            return None
        try:
            return work(self._claims)
        except PicturaError as error:
            if self._strict:
                raise
            _log.warning("the history cannot be used: %s", error)
            self._claims = None
            return None


def cancel_orphans(history: History) -> None:
    """Cancel the jobs of processes of this machine that are gone: to cancel, DashAI kills its worker."""
    if os.name == "nt":  # where one cannot ask for a process without ending it
        return
    asked = select(tasks.c.job_id, tasks.c.worker).join(jobs, jobs.c.id == tasks.c.job_id).distinct()
    asked = asked.where(tasks.c.state == "running", jobs.c.owner == OWNER, tasks.c.worker.startswith(_here()))
    with begin(history.engine, reading=True) as connection:
        rows = connection.execute(asked).all()
    for row in rows:
        try:
            os.kill(int(row.worker.removeprefix(_here())), 0)
        except ProcessLookupError:
            Jobs(history).cancel(row.job_id)
        except PermissionError:  # another user's, alive
            continue


def _here() -> str:
    """How the names of this machine's workers begin."""
    return f"{OWNER}@{socket.gethostname()}:"
