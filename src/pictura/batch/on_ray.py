"""The Ray engine: models in actors all over a cluster, everything they draw kept by this one process.

Actors hold nothing but a model: they are given items and give back pictures, and the driver alone writes
files and the ledger. So whatever dies, the ledger is right: items of a dead actor are given to another, and
a driver that is started again goes on like any other run.

Ray Data would stream as well, but its unit of failure is a block: a row that kills its worker every time is
either tried without end or takes its block's other rows with it. Here an item whose actor dies is tried
alone, so that the guilty one is known and fails by itself.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any

from pictura.batch import local
from pictura.batch.drawn import Drawn, failed
from pictura.batch.judge import Judge
from pictura.batch.plan import Item, Plan
from pictura.errors import EngineError, InputError, ParameterError, PicturaError, shown

__all__ = ["draw"]

AHEAD = 2  # calls that wait at an actor, the one it works on among them
DEATHS = 3  # of actors over one item, until it is given up
STORE = 256 << 20  # bytes of the object store of a cluster of our own: some thousand pictures in flight
PATIENCE = 300.0  # seconds until a first actor must be ready


class Drawer:
    """What runs in an actor: a model, and a judge where one is wanted."""

    def __init__(self, preset: str, plan: Plan, judge: Judge, window: int, folder: str) -> None:
        from pictura.task import TextToImage

        with suppress(OSError):  # where the driver's folder is there, relative names mean the same
            os.chdir(folder)
        self._model = TextToImage.from_preset(preset)
        self._plan, self._judge, self._window = plan, judge, window
        if self._model.digest != plan.model_digest:
            raise EngineError(
                f"model {plan.model!r} has other weights on this node than on the driver; make them the same"
            )

    def ready(self) -> None:
        """Answered once the model is loaded."""

    def draw(self, items: Sequence[Item]) -> list[Drawn]:
        """Every candidate of `items`, with a verdict where one is wanted."""
        drawings = list(local.draw(self._model, iter(items), self._plan, self._window))
        if self._plan.judged:
            drawings = list(self._judged(drawings))
        return [replace(drawn, picture=None) for drawn in drawings]

    def _judged(self, drawings: list[Drawn]) -> Iterator[Drawn]:
        drawings.sort(key=lambda drawn: (drawn.item.index, drawn.candidate))
        for _, found in groupby(drawings, key=lambda drawn: drawn.item.index):
            candidates = list(found)
            good = [drawn.picture for drawn in candidates if drawn.picture is not None]
            try:
                verdicts = iter(self._judge.look(good))
            except PicturaError:  # the driver stores the pictures, asks again, and says what is wrong
                yield from candidates
            else:
                for drawn in candidates:
                    yield drawn if drawn.picture is None else replace(drawn, verdict=next(verdicts))


def draw(
    preset: Any,
    items: Iterator[Item],
    plan: Plan,
    judge: Judge,
    window: int,
    *,
    address: str | None = None,
    actors: int | None = None,
) -> Generator[Drawn, None, None]:
    """Every candidate of every item, as the actors finish them.

    address: of a running cluster, or "auto" for the one on this machine; without one, and without
    RAY_ADDRESS, a cluster is started here for as long as this takes.
    actors: how many; by default one for each GPU of the cluster, or one for each CPU where it has none.
    """
    if not isinstance(preset, (str, os.PathLike)):
        raise ParameterError(
            f"engine 'ray' loads the model on every node; give its name or folder, not {shown(preset)}",
            parameter="model",
        )
    with _cluster(address) as ray:
        total = ray.cluster_resources()
        gpus, cpus = int(total.get("GPU", 0)), int(total.get("CPU", 1))
        count = actors or gpus or cpus
        share = {"num_gpus": gpus / count} if gpus else {"num_cpus": max(1, cpus // count)}
        made = ray.remote(Drawer).options(**share, max_restarts=0)
        arguments = (os.fspath(preset), plan, judge, window, os.getcwd())
        crew = _Crew(ray, lambda: made.remote(*arguments), count)
        try:
            yield from crew.work(items, window)
        finally:
            crew.dismiss()


@dataclass(eq=False)
class _Member:
    actor: Any
    calls: int = 0
    alone: bool = False  # has an item that nothing else may wait behind


class _Crew:
    """Actors, what they were given, and what became of it."""

    def __init__(self, ray: Any, hire: Any, count: int) -> None:
        self._ray, self._hire = ray, hire
        self._calls: dict[Any, tuple[_Member, list[Item]]] = {}
        self._starting: dict[Any, _Member] = {}
        self._members: list[_Member] = []
        self._suspects: deque[Item] = deque()
        self._deaths: dict[int, int] = {}
        self._barren = 0  # actors that died since the last picture
        self._most = 3 * count + 3
        for _ in range(count):
            self._start()

    def work(self, items: Iterator[Item], size: int) -> Iterator[Drawn]:
        more = True
        while more or self._calls or self._suspects:
            if more:
                more = self._give_out(items, size)
            self._give_suspects()
            waiting = [*self._calls, *self._starting]
            ready, _ = self._ray.wait(waiting, num_returns=1, timeout=PATIENCE)
            if not ready and not self._members:
                raise EngineError(
                    f"no actor was ready after {PATIENCE:.0f} s; see that the cluster has CPUs or GPUs free"
                )
            for reference in ready:
                yield from self._answered(reference)

    def dismiss(self) -> None:
        for member in [*self._members, *self._starting.values()]:
            with suppress(Exception):  # the cluster may be gone already
                self._ray.kill(member.actor)

    def _start(self) -> None:
        member = _Member(self._hire())
        self._starting[member.actor.ready.remote()] = member

    def _give_out(self, items: Iterator[Item], size: int) -> bool:
        """Give every free actor something; whether there may be more."""
        for member in self._members:
            while member.calls < AHEAD and not member.alone:
                if self._suspects and not member.calls:
                    break
                group = list(islice(items, size))
                if not group:
                    return False
                self._call(member, group)
        return True

    def _give_suspects(self) -> None:
        for member in self._members:
            if self._suspects and not member.calls:
                member.alone = True
                self._call(member, [self._suspects.popleft()])

    def _call(self, member: _Member, group: list[Item]) -> None:
        member.calls += 1
        self._calls[member.actor.draw.remote(group)] = member, group

    def _answered(self, reference: Any) -> Iterator[Drawn]:
        starting = self._starting.pop(reference, None)
        member, group = (starting, []) if starting is not None else self._calls.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if starting is not None:
                raise self._unable(error) from error
            answer = [failed(item, 0, f"the actor failed: {error.cause}") for item in map(_single, group)]
        except self._ray.exceptions.RayError as error:
            self._barren += 1
            if "__init__" in str(error) or self._barren > self._most:
                raise self._unable(error) from error
            yield from self._bury(member, group)
            return
        if starting is not None:
            self._members.append(starting)
            return
        member.calls, member.alone, self._barren = member.calls - 1, False, 0
        yield from answer

    def _bury(self, member: _Member, group: list[Item]) -> Iterator[Drawn]:
        """An actor has died: another one takes its place, and its items are tried again, each alone."""
        if member in self._members or not group:
            with suppress(ValueError):
                self._members.remove(member)
            self._start()
        for item in group:
            died = self._deaths[item.index] = self._deaths.get(item.index, 0) + 1
            if died >= DEATHS:
                yield failed(_single(item), 0, f"{died} actors died over it; try it on its own")
            else:
                self._suspects.append(item)

    def _unable(self, error: Exception) -> EngineError:
        told = str(error).strip().splitlines() or [type(error).__name__]
        return EngineError(f"the actors cannot work: {shown(told[-1], 200)}")


def _single(item: Item) -> Item:
    """An item whose failure is complete with one answer."""
    return replace(item, candidates=item.candidates[:1])


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "engine 'ray' needs the package ray; install it with: pip install 'pictura[ray]'"
        ) from error
    own = not ray.is_initialized()
    if own:
        address = address or os.environ.get("RAY_ADDRESS")
        new: dict[str, Any] = {} if address else {"object_store_memory": STORE, "include_dashboard": False}
        try:
            if address is not None:
                _knock(address)
            ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **new)
        except Exception as error:
            where = "here" if address is None else f"at {shown(address)}"
            raise EngineError(f"there is no Ray cluster {where} ({shown(str(error), 150)})") from error
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _knock(address: str) -> None:
    """OSError where nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()
