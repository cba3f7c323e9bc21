"""Keeps workers going: starts one for each model that tasks wait for, restarts the dead, retires the idle."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from pictura.errors import EngineError, PicturaError
from pictura.history.claims import Claims
from pictura.server.processes import Hand, Pool

__all__ = ["Supervisor"]

_log = logging.getLogger(__name__)

EARLY_DEATHS = 3  # before it was ready; then the tasks that wait for it are failed
LATER = 2.0  # seconds to wait after a death, doubled with each


@dataclass
class _Crew:
    """What is known of the worker of a model."""

    place: str
    hand: Hand | None = None
    ready: bool = False
    deaths: int = 0  # since it was last ready
    not_before: float = 0.0
    used: float = 0.0
    retired: bool = False


class Supervisor:
    """place: where the model of a name lies, PresetError for none. memory: bytes for all workers together."""

    def __init__(self, claims: Claims, pool: Pool, place: Callable[[str], str], memory: int) -> None:
        self._claims, self._pool, self._place, self._memory = claims, pool, place, memory
        self._crews: dict[str, _Crew] = {}
        self._wanted: set[str] = set()  # preloads

    def want(self, model: str) -> None:
        """Load a model though nothing waits for it."""
        self._wanted.add(model)

    def states(self) -> dict[str, str]:
        """loading, ready or failed, of the models that were ever started here."""
        said = {}
        for name, crew in self._crews.items():
            if crew.hand is not None and crew.hand.alive and not crew.retired:
                said[name] = "ready" if crew.ready else "loading"
            elif crew.deaths:
                said[name] = "failed"
        return said

    def look(self) -> None:
        """Do what is to be done now; called several times a second. Blocks for the database."""
        told = {worker.model: worker for worker in self._claims.workers()}
        now = time.monotonic()
        for name, crew in self._crews.items():
            worker = told.get(name)
            if worker is not None and worker.state == "ready":
                crew.ready, crew.deaths = True, 0
                if worker.stats.get("held"):
                    crew.used = now
            if crew.hand is not None and not crew.hand.alive:
                self._buried(name, crew, now)
        for name in sorted({*self._claims.wanted(), *self._wanted}):
            self._wanted.discard(name)
            try:
                self._ensure(name, now)
            except PicturaError as error:
                self._claims.fail_waiting(name, error)

    def stop(self, grace: float) -> None:
        """Ask all workers to end, and end those that do not within `grace` seconds."""
        hands = [crew.hand for crew in self._crews.values() if crew.hand is not None and crew.hand.alive]
        for hand in hands:
            hand.retire()
        until = time.monotonic() + grace + 2
        while any(hand.alive for hand in hands) and time.monotonic() < until:
            time.sleep(0.02)
        for hand in hands:
            if hand.alive:
                hand.kill()
        self._pool.close()

    def _ensure(self, name: str, now: float) -> None:
        crew = self._crews.get(name)
        if crew is None:
            crew = self._crews[name] = _Crew(self._place(name))
        crew.used = now
        if crew.hand is not None and crew.hand.alive:
            return
        if now < crew.not_before:
            return
        self._make_room(name)
        _log.info("starting a worker for model %r", name)
        crew.hand, crew.ready, crew.retired = self._pool.start(name, crew.place), False, False

    def _buried(self, name: str, crew: _Crew, now: float) -> None:
        assert crew.hand is not None
        if crew.hand.pid is not None:
            self._claims.bury(crew.hand.pid)
        error, crew.hand = crew.hand.error, None
        if crew.retired:
            crew.ready = False
            return
        crew.deaths += 1
        crew.not_before = now + (0 if crew.ready else LATER * 2 ** (crew.deaths - 1))
        if error is None:
            _log.warning("the worker of model %r died", name)
        if not crew.ready and error is None and crew.deaths >= EARLY_DEATHS:
            reason = (
                f"model {name!r} cannot be loaded: its worker died {crew.deaths} times; it may be too large"
            )
            self._claims.fail_waiting(name, EngineError(reason))
        crew.ready = False

    def _make_room(self, name: str) -> None:
        """Retire idle workers, the least recently used first, while all together take too much memory."""
        told = {worker.model: worker for worker in self._claims.workers()}
        taken = sum(int(worker.stats.get("memory", 0)) for worker in told.values())
        idle = [
            (crew.used, other, crew)
            for other, crew in self._crews.items()
            if other != name and crew.hand is not None and crew.hand.alive and not crew.retired
            and other in told and not told[other].stats.get("held")
        ]  # fmt: skip
        for _, other, crew in sorted(idle, key=lambda one: one[0]):
            if taken < self._memory:
                return
            assert crew.hand is not None
            _log.info("retiring the worker of model %r to make room", other)
            crew.hand.retire()
            crew.retired = True
            taken -= int(told[other].stats.get("memory", 0))
