"""Counts requests, batches, results, writes and reloads for Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from recall.core.background import BackgroundState, BackgroundWork

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Hold the counters of one service, in a registry of their own: a process may hold several services."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = Counter(
            "recall_requests", "Requests by route, method and status", ("route", "method", "status"),
            registry=self.registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "recall_request_seconds", "From the first byte of a request to its answer", ("route",),
            buckets=_LATENCY_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge("recall_requests_in_flight", "Requests under way", registry=self.registry)
        self.model_seconds = Histogram(
            "recall_model_seconds", "One call of model and index, for all requests joined in it",
            buckets=_LATENCY_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batch_queries = Histogram(
            "recall_batch_queries", "Queries joined in one call of the model", buckets=_SIZES, registry=self.registry
        )
        self.queued_queries = Gauge("recall_queued_queries", "Queries that wait for the model", registry=self.registry)
        self.results = Counter(
            "recall_results", "Lists of candidates by where they come from", ("source",), registry=self.registry
        )
        self.writes = Counter("recall_written_items", "Items added and deleted", ("operation",), registry=self.registry)
        self.clipped = Counter(
            "recall_clipped_values", "Values of added items that lay outside of what training saw", ("feature",),
            registry=self.registry,
        )  # fmt: skip
        self.reloads = Counter("recall_reloads", "Loads of a version", ("outcome",), registry=self.registry)
        self.items = Gauge("recall_index_items", "Items that can be found", registry=self.registry)
        self.loaded_at = Gauge(
            "recall_loaded_timestamp_seconds", "When the version that answers was loaded", registry=self.registry
        )
        self._background = {
            name: Gauge(
                f"recall_background_{name}", f"Work in the background: {text}", ("work",), registry=self.registry
            )
            for name, text in (
                ("consecutive_failures", "failures since the last success"),
                ("success_timestamp_seconds", "when it succeeded last; 0 before the first time"),
                ("age_seconds", "since it succeeded last, or began"),
            )
        }
        self._works: dict[str, BackgroundWork] = {}
        for outcome in ("loaded", "failed"):
            self.reloads.labels(outcome)
        for source in ("model", "fallback"):
            self.results.labels(source)

    def show(self, work: BackgroundWork) -> None:
        """Show work in the background from now on, in the place of earlier work of its name."""
        self._works[work.name] = work
        values = {
            "consecutive_failures": lambda: work.state.failures,
            "success_timestamp_seconds": lambda: work.state.last_success or 0,
            "age_seconds": lambda: work.state.age_seconds,
        }
        for name, value in values.items():
            self._background[name].labels(work.name).set_function(value)

    @property
    def background(self) -> dict[str, BackgroundState]:
        """Return the state of the work in the background by name."""
        return {name: work.state for name, work in self._works.items()}

    def text(self) -> bytes:
        """Return all counters in Prometheus' text format."""
        return generate_latest(self.registry)
