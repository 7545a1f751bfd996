"""The frontend's Prometheus metrics, in a registry of their own. Model ids are labels only once they are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST

# From half of a one-token run on a GPU to a bulk request that waited for others.
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# Reading, tokenising and packing a short query take tens of microseconds.
_STAGE_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, *_SECONDS)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One finished run: its rows, their tokens, its positions with padding, and the seconds it took."""

    rows: int
    tokens: int
    padded_tokens: int
    seconds: float


class Metrics:
    """All counters and histograms of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"sie_frontend_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"sie_frontend_{name}", text, labels, buckets=buckets, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"sie_frontend_{name}", text, labels, registry=self.registry)

        self.requests = counter("requests", "Requests answered, by route, model and status", "route", "model", "status")
        self.errors = counter("errors", "Requests refused or failed, by kind", "kind")
        self.items = counter("items", "Items received in admitted requests", "model")
        self.tokens = counter("tokens", "Token ids processed, special tokens included", "model")
        self.padded_tokens = counter("padded_tokens", "Positions of all runs, padding included", "model")
        self.truncated = counter("truncated_items", "Items cut at the model's limit", "model")
        self.request_seconds = histogram("request_seconds", "Wall time of a request", _SECONDS, "route", "model")
        self.stage_seconds = histogram(
            "stage_seconds", "Time of answered requests by stage", _STAGE_SECONDS, "stage", "model"
        )
        self.queue_seconds = histogram("queue_seconds", "Wait from submission to the first run", _SECONDS, "model")
        self.run_seconds = histogram("run_seconds", "Round trip of one run to Triton", _SECONDS, "model")
        self.run_rows = histogram("run_rows", "Rows in one run", _ROWS, "model")
        self.run_retries = counter(
            "run_retries", "Runs that got no answer from a replica and went to another", "replica", "kind"
        )
        self.model_loads = counter("model_loads", "Loads of a model by request, by outcome", "model", "outcome")
        self.model_unloads = counter("model_unloads", "Unloads of a model, by reason", "model", "reason")
        self.model_changes = counter(
            "model_changes", "Changes of the repository that were served or refused, by model", "model", "change"
        )
        self.repository_current = gauge("repository_current", "1 while what is served is what the repository holds")
        self.load_seconds = histogram("model_load_seconds", "Time until a model was loaded", _SECONDS, "model")
        self.model_memory = gauge("model_memory_bytes", "Memory that a loaded model is reckoned to take", "model")
        self.memory_used = gauge("memory_used_bytes", "Memory that all loaded models are reckoned to take")
        self.memory_budget = gauge("memory_budget_bytes", "What loaded models may take; 0 where there is no limit")
        self.inflight_requests = gauge("inflight_requests", "Requests being answered")
        self.pending_items = gauge("pending_items", "Items admitted and not answered yet")
        self.queued_tokens = gauge(
            "queued_tokens", "Tokens not computed yet: waiting in the frontend, or sent to a Triton", "model", "place"
        )
        self.pending_images = gauge("pending_images", "Images admitted and not answered yet")
        self.replica_runs = gauge("triton_inflight_runs", "Runs that a Triton has not answered yet", "replica")
        self.replica_ready = gauge("triton_ready", "1 while a Triton says that it serves a model of ours", "replica")
        self.ready = gauge("ready", "1 while /readyz answers ok")
        # Looking labels up takes longer than counting.
        self._of_runs = lru_cache(maxsize=None)(self._labelled_run_metrics)
        self._of_requests = lru_cache(maxsize=None)(self.request_seconds.labels)
        self._of_answers = lru_cache(maxsize=None)(self.requests.labels)
        self._of_stages = lru_cache(maxsize=None)(self.stage_seconds.labels)

    def _labelled_run_metrics(self, model: str) -> tuple[Counter, Counter, Histogram, Histogram]:
        return (
            self.tokens.labels(model),
            self.padded_tokens.labels(model),
            self.run_seconds.labels(model),
            self.run_rows.labels(model),
        )

    def observe_request(
        self, route: str, model: str, status: int, seconds: float, stages_ms: Mapping[str, float]
    ) -> None:
        """Count one answered request; `model` is "" unless it is known. `stages_ms` is empty for what was refused."""
        self._of_answers(route, model, str(status)).inc()
        self._of_requests(route, model).observe(seconds)
        for stage, milliseconds in stages_ms.items():
            self._of_stages(stage, model).observe(milliseconds / 1e3)

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
