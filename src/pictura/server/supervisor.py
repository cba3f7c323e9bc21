"""Keeps workers going: starts them for models that tasks wait for, restarts the dead, retires the idle."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pictura.errors import EngineError, PicturaError
from pictura.history.claims import Claims, Worker
from pictura.server.processes import Hand, Pool

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

EARLY_DEATHS = 3  # before one was ready; then the tasks that wait for the model are failed
STRANGE = 15.0  # seconds that a model we do not offer may be without a worker: other servers may offer it
LATER = 2.0  # seconds to wait after a death, doubled with each


@dataclass
class _Crew:
    """The workers of a model, by their ids in the database."""

    place: str
    hands: dict[str, Hand] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    deaths: int = 0  # since one was last ready
    not_before: float = 0.0
    used: float = 0.0
    retired: bool = False


class Supervisor:
    """place: where the model of a name lies, PresetError for none. memory: bytes for all workers together.

    workers: how many each model has; several gain where there are several devices or machines.
    """

    def __init__(
        self, claims: Claims, pool: Pool, place: Callable[[str], str], *, memory: int, workers: int = 1
    ) -> None:
        self._claims, self._pool, self._place = claims, pool, place
        self.memory, self._workers = memory, workers
        self._crews: dict[str, _Crew] = {}
        self._wanted: set[str] = set()  # preloads
        self._strange: dict[str, float] = {}  # since when nobody works on models that only others offer
        self._over = False

    def want(self, model: str) -> None:
        """Load a model though nothing waits for it."""
        self._wanted.add(model)

    def states(self) -> dict[str, str]:
        """loading, ready or failed, of the models that were ever started here."""
        said = {}
        for name, crew in self._crews.items():
            if crew.hands and not crew.retired:
                said[name] = "ready" if crew.ready else "loading"
            elif crew.deaths:
                said[name] = "failed"
        return said

    def look(self) -> None:
        """Do what is to be done now; called several times a second. Blocks for the database."""
        if self._over:
            return
        told = {worker.id: worker for worker in self._claims.workers()}
        now = time.monotonic()
        for name, crew in self._crews.items():
            for id in crew.hands:
                if id in told and told[id].state == "ready":
                    crew.ready.add(id)
                    crew.deaths = 0
                    if told[id].stats.get("held"):
                        crew.used = now
            for id, hand in list(crew.hands.items()):
                if not hand.alive:
                    self._buried(name, crew, id, now)
        wanted = {*self._claims.wanted(), *self._wanted, *self._short()}
        self._strange = {name: since for name, since in self._strange.items() if name in wanted}
        for name in sorted(wanted):
            self._wanted.discard(name)
            try:
                self._ensure(name, now, told)
            except PicturaError as error:
                if any(worker.model == name for worker in told.values()):
                    self._strange[name] = now
                if now >= self._strange.setdefault(name, now) + STRANGE:
                    self._claims.fail_waiting(name, error)

    def stop(self, grace: float) -> None:
        """Ask all workers to end, and end those that do not within `grace` seconds; start none any more."""
        if self._over:
            return
        self._over = True
        asked: set[int] = set()
        until = time.monotonic() + grace + 2
        while (alive := [hand for hand in self._hands() if hand.alive]) and time.monotonic() < until:
            for hand in alive:
                if id(hand) not in asked:
                    asked.add(id(hand))
                    hand.retire()
            time.sleep(0.02)
        for hand in alive:
            hand.kill()
        self._pool.close()

    def kill(self) -> None:
        """End all workers at once; what they held is taken over when its leases are over."""
        self._over = True
        for hand in self._hands():
            hand.kill()

    def _hands(self) -> list[Hand]:
        return [hand for crew in list(self._crews.values()) for hand in list(crew.hands.values())]

    def _short(self) -> list[str]:
        """Models that have lost some of their workers."""
        return [n for n, crew in self._crews.items() if 0 < len(crew.hands) < self._workers]

    def _ensure(self, name: str, now: float, told: dict[str, Worker]) -> None:
        crew = self._crews.get(name)
        if crew is None:
            crew = self._crews[name] = _Crew(self._place(name))
        crew.used = now
        if now < crew.not_before or (crew.retired and crew.hands):  # those that leave are waited for
            return
        crew.retired = False
        if not crew.hands:
            self._make_room(name, told)
        while len(crew.hands) < self._workers and not self._over:
            id = f"{os.uname().nodename}-{secrets.token_hex(8)}"
            _log.info("starting worker %s for model %r", id, name)
            crew.hands[id] = self._pool.start(id, name, crew.place)

    def _buried(self, name: str, crew: _Crew, id: str, now: float) -> None:
        hand, was_ready = crew.hands.pop(id), id in crew.ready
        crew.ready.discard(id)
        self._claims.bury(id)
        if crew.retired:
            return
        crew.deaths += 1
        crew.not_before = now + (0 if was_ready else LATER * 2 ** (crew.deaths - 1))
        if hand.error is None:
            _log.warning("worker %s of model %r died", id, name)
        else:
            _log.error("model %r cannot be loaded: %s", name, hand.error)
        if was_ready:
            self._wanted.add(name)
        if not was_ready and not crew.ready and hand.error is None and crew.deaths >= EARLY_DEATHS:
            reason = (
                f"model {name!r} cannot be loaded: its worker died {crew.deaths} times; it may be too large"
            )
            self._claims.fail_waiting(name, EngineError(reason))

    def _make_room(self, name: str, told: dict[str, Worker]) -> None:
        """Retire idle workers, the least recently used first, while all together take too much memory."""

        def memory(crew: _Crew) -> int:
            return sum(int(told[id].stats.get("memory", 0)) for id in crew.hands if id in told)

        def idle(crew: _Crew) -> bool:
            return all(id in told and not told[id].stats.get("held") for id in crew.hands)

        others = [(n, c) for n, c in self._crews.items() if n != name and c.hands]
        taken = sum(memory(crew) for _, crew in others)
        for other, crew in sorted(others, key=lambda one: one[1].used):
            if taken < self.memory:
                return
            if crew.retired or not idle(crew):
                continue
            _log.info("retiring the workers of model %r to make room", other)
            for hand in crew.hands.values():
                hand.retire()
            crew.retired = True
            taken -= memory(crew)
