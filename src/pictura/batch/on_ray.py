"""Ray Data deals items to models in actors all over a cluster; this process keeps what they draw.

Actors hold nothing but a model: they are given items and give back pictures, and the driver alone writes
files and the ledger. So whatever dies, the ledger is right: Ray Data gives the items of a dead actor to
another one, and a driver that is started again goes on like any other run.

Ray Data tries a call whose actor died again without end, and with it every item of that call; an actor that
dies as it loads its model is started again without end too. So actors count at a `Tally` what they begin: a
group that an actor has died over is drawn one item at a time, an item that several actors died over fails by
itself, and an actor that died several times over its model ends the run.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from itertools import groupby, islice
from typing import Any

from pictura.batch import local
from pictura.batch.drawn import Drawn, failed
from pictura.batch.judge import Judge
from pictura.batch.plan import Item, Plan
from pictura.errors import EngineError, InputError, ParameterError, PicturaError, shown

__all__ = ["draw"]

AHEAD = 2  # calls that wait at an actor, the one it works on among them
DEATHS = 3  # of actors over one item, or of one actor over its model, until it is given up
STORE = 256 << 20  # bytes of the object store of a cluster of our own: some thousand pictures in flight
PATIENCE = 300  # seconds until there must be room for an actor
WAVE = 5000  # items for each actor between two loadings of its model, which so cost a hundredth or less
MOST = 200_000  # items in one wave, which are in this process's memory


class Tally:
    """What runs beside the actors: how often each thing was begun."""

    def __init__(self) -> None:
        self._begun: Counter[str] = Counter()

    def begin(self, name: str) -> int:
        """How often `name` was begun, this time included."""
        self._begun[name] += 1
        return self._begun[name]

    def end(self, name: str) -> None:
        """It came to an end; nothing about it needs to be known any more."""
        self._begun.pop(name, None)


class Drawer:
    """What runs in an actor: a model, and a judge where one is wanted."""

    def __init__(self, preset: str, plan: Plan, judge: Judge, window: int, folder: str, tally: Any) -> None:
        from pictura.task import TextToImage

        with suppress(OSError):  # where the driver's folder is there, relative names mean the same
            os.chdir(folder)
        self._plan, self._judge, self._window, self._tally = plan, judge, window, tally
        self._unable: PicturaError | None = None  # Ray would try for ever what fails here
        name = f"actor {_own_id()}"
        try:
            if (died := self._begin(name) - 1) >= DEATHS:
                raise EngineError(
                    f"an actor died {died} times while it loaded model {plan.model!r}; see that there is "
                    "memory for it on every node"
                )
            self._model = TextToImage.from_preset(preset)
            if self._model.digest != plan.model_digest:
                raise EngineError(
                    f"model {plan.model!r} has other weights on an actor's node than on the driver; "
                    "make them the same"
                )
        except PicturaError as error:
            self._unable = error
        else:
            tally.end.remote(name)

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Every candidate of every item, with a verdict where one is wanted; or why the actor cannot work."""
        if self._unable is not None:
            return {"drawn": [self._unable]}
        items: list[Item] = list(rows["item"])
        name = f"group {items[0].index}"
        if self._begin(name) == 1:
            drawings = self._draw(items)
        else:
            drawings = [drawn for item in items for drawn in self._draw_alone(item)]
        self._tally.end.remote(name)
        return {"drawn": drawings}

    def _begin(self, name: str) -> int:
        import ray

        return int(ray.get(self._tally.begin.remote(name)))

    def _draw_alone(self, item: Item) -> list[Drawn]:
        """An item of a group that an actor died over; perhaps it was this one."""
        name = f"item {item.index}"
        died = self._begin(name) - 1
        if died >= DEATHS:
            return [failed(_single(item), 0, f"{died} actors died over it; try it on its own")]
        drawings = self._draw([item])
        self._tally.end.remote(name)
        return drawings

    def _draw(self, items: Sequence[Item]) -> list[Drawn]:
        try:
            drawings = list(local.draw(self._model, iter(items), self._plan, self._window))
            if self._plan.judged:
                drawings = list(self._judged(drawings))
        except Exception as error:  # an error here would end the work of all actors
            return [failed(_single(item), 0, f"the actor failed: {error}") for item in items]
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
        share = {"num_gpus": gpus / count} if gpus else {"num_cpus": cpus // count or cpus / count}
        _wait_for(ray, share)
        tally = ray.remote(Tally).options(num_cpus=0, max_restarts=-1, max_task_retries=-1).remote()
        arguments = (os.fspath(preset), plan, judge, window, os.getcwd(), tally)
        with _quiet(ray.data) as data:
            while wave := list(islice(items, min(WAVE * count, MOST))):
                drawings = data.from_items(
                    [{"item": item} for item in wave], override_num_blocks=-(-len(wave) // window)
                ).map_batches(
                    Drawer,
                    fn_constructor_args=arguments,
                    batch_format="numpy",
                    compute=data.ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=AHEAD),
                    **share,
                )
                yield from _drawn(drawings)


def _wait_for(ray: Any, share: dict[str, float]) -> None:
    """EngineError unless the cluster soon has room for an actor; Ray Data would wait for ever."""
    room = ray.remote(lambda: None).options(**share).remote()
    try:
        ray.get(room, timeout=PATIENCE)
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(room)
        raise EngineError(
            f"no actor had room for {PATIENCE} s; see that the cluster has CPUs or GPUs free"
        ) from error


def _drawn(drawings: Any) -> Iterator[Drawn]:
    try:
        for batch in drawings.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for drawn in batch["drawn"]:
                if isinstance(drawn, PicturaError):
                    raise drawn
                yield drawn
    except PicturaError:
        raise
    except Exception as error:
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise EngineError(f"the actors cannot work: {shown(told[-1], 200)}") from error


def _own_id() -> str:
    """Of the actor that this runs in; the same after Ray has started it again."""
    import ray

    return str(ray.get_runtime_context().get_actor_id())


def _single(item: Item) -> Item:
    """An item whose failure is complete with one answer."""
    return replace(item, candidates=item.candidates[:1])


@contextmanager
def _quiet(data: Any) -> Iterator[Any]:
    """Ray Data, saying nothing and waiting for no actor: those that are ready begin."""
    context = copy(data.DataContext.get_current())
    context.enable_progress_bars = context.print_on_execution_start = False
    context.wait_for_min_actors_s = -1
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with data.DataContext.current(context):
            yield data
    finally:
        logger.setLevel(level)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what of its own lines comes to this terminal
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            "engine 'ray' needs the package ray with ray.data; install it with: pip install 'pictura[ray]'"
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
