"""The names of metrics that exist: Triton's documented ones, and what the frontend's own registry exposes."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

# docs/user_guide/metrics.md of triton-inference-server/server, without the summaries, which are off by default.
TRITON_METRICS = frozenset(
    {
        "nv_inference_request_success",
        "nv_inference_request_failure",
        "nv_inference_count",
        "nv_inference_exec_count",
        "nv_inference_pending_request_count",
        "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us",
        "nv_inference_compute_input_duration_us",
        "nv_inference_compute_infer_duration_us",
        "nv_inference_compute_output_duration_us",
        "nv_gpu_power_usage",
        "nv_gpu_power_limit",
        "nv_energy_consumption",
        "nv_gpu_utilization",
        "nv_gpu_memory_total_bytes",
        "nv_gpu_memory_used_bytes",
        "nv_cpu_utilization",
        "nv_cpu_memory_total_bytes",
        "nv_cpu_memory_used_bytes",
        "nv_pinned_memory_pool_total_bytes",
        "nv_pinned_memory_pool_used_bytes",
        "nv_cache_num_hits_per_model",
        "nv_cache_num_misses_per_model",
        "nv_cache_hit_duration_per_model",
        "nv_cache_miss_duration_per_model",
    }
)
# The suffixes of what a scrape shows of each type; the times of creation are of no use in a dashboard.
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def exposed_names(registry: CollectorRegistry) -> frozenset[str]:
    """Every name that a scrape of `registry` can show, whether it has been observed or not."""
    families = list(registry.collect())
    return frozenset(family.name + suffix for family in families for suffix in _SUFFIXES[family.type])


def exposed_labels(registry: CollectorRegistry) -> dict[str, frozenset[str]]:
    """The labels of each of these names."""
    labels: dict[str, frozenset[str]] = {}
    for collector in set(registry._collector_to_names):
        for family in collector.collect():
            for suffix in _SUFFIXES[family.type]:
                labels[family.name + suffix] = frozenset(getattr(collector, "_labelnames", ()))
    return labels
