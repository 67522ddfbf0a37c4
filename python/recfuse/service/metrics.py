"""Numbers about a service, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The numbers of one service, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        at: dict[str, Any] = {"registry": self._registry}
        stages = Histogram(
            "recfuse_stage_seconds",
            "Time of a stage: waiting for a search, the search of a batch, making the response",
            ["stage"],
            buckets=_SECONDS,
            **at,
        )
        self.queue = stages.labels("queue")
        self.search = stages.labels("search")
        self.respond = stages.labels("respond")
        self._seconds = Histogram(
            "recfuse_request_seconds",
            "Time of a request, from its first byte in the application to its response",
            ["route"],
            buckets=_SECONDS,
            **at,
        )
        self._requests = Counter(
            "recfuse_requests", "Requests by route and status", ["route", "status"], **at
        )
        self.batch = Histogram("recfuse_batch_size", "Requests in one search", buckets=_SIZES, **at)
        self.reloads = Counter(
            "recfuse_reloads", "Loads of a new model file, by outcome", ["outcome"], **at
        )
        self.rescored = Gauge(
            "recfuse_candidates_rescored",
            "Items that a query scored canonically after a screen, in the screen's last trial; "
            "NaN before the first search of many queries",
            **at,
        )
        self._made: dict[tuple[str, int], tuple[Histogram, Counter]] = {}

    def watch(self, name: str, help_: str, value: Callable[[], float]) -> None:
        """Read a number whenever the numbers are asked for."""
        Gauge(name, help_, registry=self._registry).set_function(value)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        made = self._made.get((route, status))
        if made is None:
            made = (self._seconds.labels(route), self._requests.labels(route, status))
            self._made[route, status] = made
        made[0].observe(seconds)
        made[1].inc()

    def text(self) -> bytes:
        """Return all numbers in Prometheus' text format."""
        return generate_latest(self._registry)
