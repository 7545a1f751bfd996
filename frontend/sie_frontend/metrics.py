"""The frontend's Prometheus metrics, in a registry of their own. Model ids are labels only once they are known."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sie_frontend.scheduler import RunRecord

CONTENT_TYPE = CONTENT_TYPE_LATEST

# From half of a one-token run on a GPU to a bulk request that waited for others.
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """All counters and histograms of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"sie_frontend_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"sie_frontend_{name}", text, labels, buckets=buckets, registry=self.registry)

        self.requests = counter("requests", "Requests answered, by route, model and status", "route", "model", "status")
        self.errors = counter("errors", "Requests refused or failed, by kind", "kind")
        self.items = counter("items", "Items received in admitted requests", "model")
        self.tokens = counter("tokens", "Token ids processed, special tokens included", "model")
        self.padded_tokens = counter("padded_tokens", "Positions computed, padding included", "model")
        self.truncated = counter("truncated_items", "Items cut at the model's limit", "model")
        self.request_seconds = histogram("request_seconds", "Wall time of a request", _SECONDS, "route", "model")
        self.queue_seconds = histogram("queue_seconds", "Wait from submission to the first run", _SECONDS, "model")
        self.run_seconds = histogram("run_seconds", "Round trip of one run to Triton", _SECONDS, "model")
        self.run_rows = histogram("run_rows", "Rows in one run", _ROWS, "model")
        self.pending_items = Gauge(
            "sie_frontend_pending_items", "Items admitted and not answered yet", registry=self.registry
        )
        self.ready = Gauge("sie_frontend_ready", "1 while /readyz answers ok", registry=self.registry)
        # Looking labels up takes longer than counting.
        self._of_runs = lru_cache(maxsize=None)(self._labelled_run_metrics)

    def _labelled_run_metrics(self, model: str) -> tuple[Counter, Counter, Histogram, Histogram]:
        return (
            self.tokens.labels(model),
            self.padded_tokens.labels(model),
            self.run_seconds.labels(model),
            self.run_rows.labels(model),
        )

    def observe_run(self, model: str, record: RunRecord) -> None:
        """Count one finished run of a Triton model."""
        tokens, padded_tokens, seconds, rows = self._of_runs(model)
        tokens.inc(record.tokens)
        padded_tokens.inc(record.padded_tokens)
        seconds.observe(record.seconds)
        rows.observe(record.rows)

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self.registry)
