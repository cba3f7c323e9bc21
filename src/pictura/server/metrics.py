"""Figures for Prometheus: the requests of this process, and what the database says of the queue and workers.

With several API processes each tells of its own requests; queue and workers are the same from each, since
they are read from the database: take one of them (`max`), and the sum of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from pictura import __version__
from pictura.errors import PicturaError
from pictura.history.claims import Claims, Worker
from pictura.server.lags import BOUNDS
from pictura.server.rates import Listeners

__all__ = ["Metrics"]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_COUNTED = {  # name, in a worker's stats, help
    "pictura_pictures": ("pictures", "Pictures that were made"),
    "pictura_failures": ("failures", "Tasks that ended without a picture"),
    "pictura_steps": ("steps", "Steps of all pictures"),
    "pictura_drawing_seconds": ("seconds", "Seconds in which something was drawn"),
    "pictura_passes": ("passes", "Passes of networks, or calls of a service"),
    "pictura_rows": ("rows", "Rows that passes answered; rows / passes is how full batches are"),
}


class Metrics:
    """limit: of the queue."""

    def __init__(self, claims: Claims, *, listeners: Listeners, limit: int) -> None:
        self._registry = registry = CollectorRegistry()
        labels = ("route", "method")
        self._requests = Counter(
            "pictura_requests", "Requests that were answered", (*labels, "status"), registry=registry
        )
        self._seconds = Histogram(
            "pictura_request_seconds", "Until the end of the answer; not of streams of events", labels,
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        streams = Gauge("pictura_listeners", "Streams of events that are open", registry=registry)
        streams.set_function(lambda: listeners.open)
        Gauge("pictura_queue_limit", "Tasks that may wait", registry=registry).set(limit)
        about = Gauge("pictura_info", "The version", ("version",), registry=registry)
        about.labels(__version__).set(1)
        ProcessCollector(registry=registry)
        registry.register(_Stored(claims))

    def seen(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; status 0 where the client went before there was an answer."""
        method = method if method in METHODS else "other"
        self._requests.labels(route, method, str(status or 499)).inc()
        if not route.endswith("/events"):
            self._seconds.labels(route, method).observe(seconds)

    def text(self) -> bytes:
        """All of it in Prometheus' text format. Asks the database."""
        return generate_latest(self._registry)


class _Stored(Collector):
    """What is read from the database at each scrape."""

    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: what is there depends on the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("pictura_database_up", "1 where the database answers")
        try:
            queue, workers = self._claims.queue(), self._claims.workers()
        except PicturaError:  # the figures of this process are wanted all the more
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        waiting = GaugeMetricFamily(
            "pictura_queue_tasks",
            "Tasks that wait (queued) or are drawn (running)",
            labels=["model", "state"],
        )
        for (model, state), count in sorted(queue.items()):
            waiting.add_metric([model, state], count)
        yield waiting
        yield from _of(workers)


def _of(workers: list[Worker]) -> Iterator[Metric]:
    loaded = GaugeMetricFamily("pictura_models_loaded", "Models with a worker that is ready")
    loaded.add_metric([], len({worker.model for worker in workers if worker.state == "ready"}))
    yield loaded
    state = GaugeMetricFamily(
        "pictura_worker_state", "1 for the state that a worker is in", labels=["model", "worker", "state"]
    )
    for worker in workers:
        state.add_metric([worker.model, worker.id, worker.state], 1)
    yield state
    for name, (stat, text) in _COUNTED.items():
        counter = CounterMetricFamily(name, text, labels=["model", "worker"])
        for worker, value in _stats(workers, stat):
            counter.add_metric([worker.model, worker.id], value)
        yield counter
    for name, stat, text in (
        ("pictura_worker_memory_bytes", "memory", "Resident memory of a worker"),
        ("pictura_worker_held", "held", "Pictures that a worker draws now"),
    ):
        gauge = GaugeMetricFamily(name, text, labels=["model", "worker"])
        for worker, value in _stats(workers, stat):
            gauge.add_metric([worker.model, worker.id], value)
        yield gauge
    yield _lags(workers)


def _lags(workers: list[Worker]) -> Metric:
    family = HistogramMetricFamily(
        "pictura_picture_seconds", "From the acceptance of a job to each of its pictures",
        labels=["model", "worker"],
    )  # fmt: skip
    for worker in workers:
        lags = worker.stats.get("lags")
        if isinstance(lags, Mapping):
            bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
            buckets = list(zip(bounds, lags["counts"], strict=True))
            family.add_metric([worker.model, worker.id], buckets=buckets, sum_value=lags["sum"])
    return family


def _stats(workers: list[Worker], name: str) -> Iterator[tuple[Worker, Any]]:
    return ((worker, worker.stats[name]) for worker in workers if name in worker.stats)
