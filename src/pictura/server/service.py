"""What every wire format is made of: submit a job, wait for it, watch it, know the models."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from pictura import presets
from pictura.errors import ParameterError, PicturaError, did_you_mean, shown
from pictura.history import Entry, History
from pictura.history.calls import Calls
from pictura.history.claims import Claims
from pictura.history.jobs import ENDED, Job, Jobs
from pictura.request import Request, random_seed
from pictura.server.adapters import adapter_names
from pictura.server.errors import Busy, UnknownModel
from pictura.server.outside import lora_names, placed
from pictura.server.processes import Pool, Processes
from pictura.server.rates import Listeners, Rates
from pictura.server.settings import Settings
from pictura.server.supervisor import Supervisor
from pictura.server.watching import LOOK, Told, Watching

__all__ = ["Service"]

SUPERVISE = 0.05  # seconds between two looks
SEEDS = 2**32 - 1  # the largest that is drawn: every client can hold it

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Service:
    """One for each API process. Coroutines belong to its event loop; what blocks is done in threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.history = History(settings.url, settings.folder)
        self.jobs = Jobs(self.history)
        self.claims = Claims(self.history)
        self.calls = Calls(self.jobs)
        self._line: WeakValueDictionary[tuple[str, bytes], asyncio.Lock] = WeakValueDictionary()
        self.watching = Watching(self.jobs, self.url)
        self.rates = Rates(settings.keys, settings.limits)
        self.listeners = Listeners(settings.limits.listeners)
        memory = settings.memory or _most_memory()
        self.supervisor = Supervisor(
            self.claims, self._pool(), self.place, memory=memory, workers=settings.workers
        )
        self._tasks: list[asyncio.Task[None]] = []

    # Its life

    async def start(self) -> None:
        """Open the history, and begin to keep workers going; the default model is loaded at once."""
        await self.thread(lambda: self.history.engine)
        self.supervisor.want(self.settings.default)
        self._tasks = [asyncio.create_task(self.watching.run()), asyncio.create_task(self._supervise())]

    async def retire(self) -> None:
        """End the workers in an orderly way: what they have begun is finished within the grace, and told."""
        self.watching.leave()
        await self.thread(self.supervisor.stop, self.settings.grace)
        await asyncio.sleep(5 * LOOK)  # whoever waits for their last pictures is told of them
        self.watching.close()

    async def stop(self) -> None:
        """Let go of everything; what `retire` has done already is not done again."""
        self.watching.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.thread(self.supervisor.stop, self.settings.grace)
        self.history.close()

    async def thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function` in a thread: everything that asks the database or the disk."""
        return await asyncio.to_thread(function, *args, **kwargs)

    # Jobs

    async def submit(
        self,
        requests: Sequence[Request],
        *,
        owner: str = "",
        key: str | None = None,
        said: bytes | None = None,
        attempt: int | None = None,
    ) -> Job:
        """Accept a job; when this returns it is stored and will be made.

        Models and seeds are filled in here, so that a task made twice is the same picture. key: an
        idempotency key, held against `said`, the body that the client sent. attempt: how often a client
        that repeats what was not answered has said the same before; `answered` is to follow. UnknownModel,
        ParameterError, Busy, KeyConflict.
        """
        limits = self.settings.limits
        if not 1 <= len(requests) <= limits.images:
            raise ParameterError(
                f"the job has {len(requests)} pictures; ask for 1 to {limits.images}", parameter="requests"
            )
        said = "\n".join(request.to_json() for request in requests).encode() if said is None else said
        ready = [self._ready(request) for request in requests]
        if attempt is None or key is not None:
            return await self.thread(self._submit, ready, owner, key, said)
        # One after the other: a first call may still be on its way into the database.
        line = self._line.setdefault((owner, said), asyncio.Lock())
        async with line:
            return await self.thread(self._submit_call, ready, owner, said, attempt)

    async def answered(self, id: str, *, failed: bool = False) -> None:
        """The client of a job that was submitted with an `attempt` has its answer, or its error."""
        await self.thread(self.calls.answered, id, failed=failed)

    async def job(self, id: str) -> Job:
        """NotFound where there is none."""
        return await self.thread(self.jobs.get, id)

    async def cancel(self, id: str) -> Job:
        """Make no more of it; finished pictures stay."""
        return await self.thread(self.jobs.cancel, id)

    async def ended(self, id: str, timeout: float | None = None) -> Job:
        """The job when it has ended, or as it is after `timeout` seconds or at the end of the server."""
        try:
            async with asyncio.timeout(timeout):
                async for _ in self.watching.watch(id, steps=False):
                    pass
        except TimeoutError:
            pass
        return await self.job(id)

    def watch(self, id: str, after: int = 0, *, resumes: bool = False) -> AsyncIterator[Told | None]:
        """What happens to a job since event `after`; see `Watching.watch`."""
        return self.watching.watch(id, after, resumes=resumes)

    def url(self, id: str) -> str:
        """Where the file of a picture is, below the server's address."""
        return f"/images/{id}.png"

    async def entry(self, id: str) -> Entry:
        """A picture of the history; NotFound."""
        return await self.thread(self.history.get, id)

    # Models

    def place(self, name: str) -> str:
        """Where the model of a name is; UnknownModel where this server does not offer it."""
        offered = self.offered()
        if name not in offered:
            raise UnknownModel(f"model {shown(name)} is not offered here; {did_you_mean(name, offered)}")
        return offered[name]

    def offered(self) -> Mapping[str, str]:
        """What requests may name, and where it lies: what is on this machine, and what it was started with.

        Presets that would be downloaded are not among them: whoever runs the server names those.
        """
        here = [name for name, preset in presets.presets().items() if "://" not in (preset.uri or "")]
        return {**{name: name for name in here}, **self.settings.models}

    async def models(self) -> list[dict[str, Any]]:
        """Every model with its state and, once it was loaded somewhere, what it can do; the default first."""
        known = await self.thread(self.claims.descriptions)
        workers = await self.thread(self.claims.workers)
        states = {**self.supervisor.states(), **{worker.model: worker.state for worker in workers}}
        texts = {name: preset.description for name, preset in presets.presets().items()}
        names = sorted(self.offered(), key=lambda name: (name != self.settings.default, name))
        return [
            {
                "name": name,
                "state": states.get(name, "unloaded"),
                "default": name == self.settings.default,
                "description": texts.get(name, ""),
                **({"details": known[name]} if name in known else {}),
            }
            for name in names
        ]

    def loras(self) -> list[str]:
        """The LoRA files that requests may name."""
        return lora_names(self.settings.loras)

    def adapters(self) -> dict[str, list[str]]:
        """The ControlNets, T2I- and IP-Adapters that requests may name, by the option that takes them."""
        return adapter_names(self.settings.adapters)

    # Inside

    def _pool(self) -> Pool:
        settings, folder = self.settings, self.history.folder.absolute()
        if settings.engine == "local":
            return Processes(url=settings.url, folder=folder, grace=settings.grace, log=settings.log)
        from pictura.server.on_ray import Actors

        return Actors(address=settings.address, url=settings.url, folder=folder, grace=settings.grace)

    async def _supervise(self) -> None:
        while True:
            try:
                await self.thread(self.supervisor.look)
            except PicturaError as error:
                _log.warning("%s", error)
                await asyncio.sleep(1)
            except Exception:
                _log.exception("the supervisor stumbled")
                await asyncio.sleep(1)
            await asyncio.sleep(SUPERVISE)

    def _submit(self, requests: list[Request], owner: str, key: str | None, said: bytes) -> Job:
        if key is None or not self.jobs.knows(owner, key):  # a job that was accepted takes no more room
            self._refuse_when_full(requests, owner)
        return self.jobs.submit(requests, owner=owner, key=key, said=said)

    def _submit_call(self, requests: list[Request], owner: str, said: bytes, attempt: int) -> Job:
        try:
            self._refuse_when_full(requests, owner)
        except Busy:
            self.calls.settled(owner=owner, said=said)
            raise
        return self.calls.submit(requests, owner=owner, said=said, attempt=attempt)

    def _refuse_when_full(self, requests: list[Request], owner: str) -> None:
        waiting, most = self.claims.waiting(), self.settings.limits.queue
        if len(requests) > most:
            raise ParameterError(
                f"the job has {len(requests)} pictures and the queue here holds {most}; ask for fewer",
                parameter="requests",
            )
        if waiting + len(requests) > most:
            raise Busy(
                f"the queue is full ({waiting} pictures wait); ask again later",
                retry_after=self._drained_in(waiting),
            )
        self.rates.pictures(owner, len(requests))

    def _drained_in(self, waiting: int) -> int:
        """Seconds until half the queue is made, as fast as the workers were until now."""
        stats = [worker.stats for worker in self.claims.workers()]
        seconds = sum(stat.get("seconds", 0.0) for stat in stats)
        made = sum(stat.get("pictures", 0) for stat in stats)
        return math.ceil(waiting / 2 * seconds / made / len(stats)) if made else 10

    def _ready(self, request: Request) -> Request:
        """With a model and a seed, within the limits, and without places on this machine."""
        limits, name = self.settings.limits, request.model or self.settings.default
        place = self.place(name)
        if len(request.prompt) > limits.prompt or len(request.negative_prompt or "") > limits.prompt:
            raise ParameterError(f"the prompt has more than {limits.prompt} characters", parameter="prompt")
        width, height = request.size or (0, 0)
        if width * height * (request.num_steps or 1) > limits.work:
            raise ParameterError(
                f"{width}x{height} pixels in {request.num_steps or 1} steps is too much work here; "
                "ask for fewer or smaller",
                parameter="size",
            )
        request = placed(request, self.settings.loras, self.settings.adapters)
        seed = request.seed
        if seed is None and presets.remote(place) is None:
            seed = random_seed(SEEDS)
        return replace(request, model=name, seed=seed)


def ended(job: Job) -> bool:
    """Whether nothing more will happen to it."""
    return job.status in ENDED


def _most_memory() -> int:
    """70 % of what the machine has, in bytes."""
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 0.7)
    except (ValueError, OSError):
        return 8 << 30
