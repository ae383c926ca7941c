"""The health metrics of an endpoint as Prometheus text (facts/control_plane §7, data_plane §8).

Names and types are DOC; the labels are a GUESS. `prometheus_client` is imported with the first
scrape: no start waits for it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from servemu.metering import BUCKETS, MINUTE, Counts, Histogram, Second

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LABELS = ("endpoint_name", "served_entity_name")


@dataclass(frozen=True, slots=True)
class Replicas:
    """A served entity at the time of the scrape."""

    entity: str
    is_gpu: bool
    concurrency: int
    """Requests at a time: what admission really allows."""
    tokens_per_second: float | None = None
    """Provisioned; None: not sized in tokens/s."""
    weights_percentage: float | None = None
    """Bytes of its model's weights over the memory of the device; None: not known."""
    in_flight: int = 0
    """Requests that wait for tokens, or run."""
    waiting: int = 0
    """Those that wait for their prompts to be paid."""
    waiting_tokens: float = 0.0
    """What is unpaid of these prompts."""
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Scrape:
    """An endpoint at one moment."""

    endpoint: str
    replicas: tuple[Replicas, ...]
    at: float
    """Seconds since the epoch, on the workspace's clock: the timestamp of every line, in ms."""
    cpu_percentage: float
    memory_percentage: float | None

    def collect(self) -> Iterator["Metric"]:
        """What `prometheus_client` asks a registry for."""
        yield from self._gauges()
        yield from self._histograms()

    def _gauges(self) -> Iterator["Metric"]:
        from prometheus_client.core import GaugeMetricFamily

        for name, (documentation, value) in GAUGES.items():
            gauge = GaugeMetricFamily(name, documentation, labels=LABELS)
            for one in self.replicas:
                shown = value(self, one)
                if shown is not None:
                    gauge.add_metric([self.endpoint, one.entity], shown, self.at)
            if gauge.samples:
                yield gauge

    def _histograms(self) -> Iterator["Metric"]:
        from prometheus_client.core import HistogramMetricFamily

        for name, (documentation, of) in HISTOGRAMS.items():
            family = HistogramMetricFamily(name, documentation, labels=LABELS)
            for one in self.replicas:
                histogram = of(one.counts)
                labels = [self.endpoint, one.entity]
                family.add_metric(labels, cumulative(histogram), histogram.sum, self.at)
            yield family


def exposition(scrape: Scrape) -> bytes:
    """The text format 0.0.4, whose timestamps are in ms as the docs show them."""
    from prometheus_client import generate_latest

    return generate_latest(scrape)


def cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    """`le` → requests that took no longer."""
    total = 0
    buckets: list[tuple[str, float]] = []
    for edge, number in zip([*map(str, BUCKETS), "+Inf"], histogram.counts, strict=True):
        total += number
        buckets.append((edge, float(total)))
    return buckets


def _minute(scrape: Scrape, one: Replicas) -> Second:
    return one.counts.last_minute(scrape.at)


def _gpu_usage(scrape: Scrape, one: Replicas) -> float | None:
    """A played GPU is as busy as its provisioned tokens/s are used (no real GPU is asked)."""
    if not one.is_gpu or not one.tokens_per_second:
        return None
    delivered = _minute(scrape, one).tokens / MINUTE
    return min(100.0, 100 * delivered / one.tokens_per_second)


Gauge = tuple[str, Callable[[Scrape, Replicas], float | None]]

GAUGES: Mapping[str, Gauge] = {
    "cpu_usage_percentage": (
        "CPU usage of the process that plays all replicas, since the last scrape.",
        lambda scrape, one: scrape.cpu_percentage,
    ),
    "mem_usage_percentage": (
        "Memory of the process that plays all replicas.",
        lambda scrape, one: scrape.memory_percentage,
    ),
    "gpu_usage_percentage": ("Used share of the provisioned tokens/s, last minute.", _gpu_usage),
    "gpu_memory_usage_percentage": (
        "Weights of the model that plays this one, share of the memory they are in.",
        lambda scrape, one: one.weights_percentage if one.is_gpu else None,
    ),
    "provisioned_concurrent_requests_total": (
        "Requests that are taken at a time.",
        lambda scrape, one: one.concurrency,
    ),
    "request_count_total": (
        "Requests in the last minute.",
        lambda scrape, one: _minute(scrape, one).requests,
    ),
    "request_4xx_count_total": (
        "Requests answered 4xx in the last minute.",
        lambda scrape, one: _minute(scrape, one).client_errors,
    ),
    "request_5xx_count_total": (
        "Requests answered 5xx in the last minute.",
        lambda scrape, one: _minute(scrape, one).server_errors,
    ),
    "emulator_requests_in_flight": (
        "Requests that wait for tokens, or run.",
        lambda scrape, one: one.in_flight,
    ),
    "emulator_queued_requests": (
        "Requests whose prompts wait for the token budget.",
        lambda scrape, one: one.waiting,
    ),
    "emulator_queued_tokens": (
        "What is unpaid of these prompts.",
        lambda scrape, one: one.waiting_tokens,
    ),
}
"""Gauges despite the suffix of some (facts/control_plane §7). Those named `emulator_` are ours."""

HISTOGRAMS: Mapping[str, tuple[str, Callable[[Counts], Histogram]]] = {
    "request_latency_ms": ("Round trip.", lambda counts: counts.latency),
    "model_queue_time_ms": ("Until admitted.", lambda counts: counts.queue),
    "model_prediction_latency_ms": ("From then on.", lambda counts: counts.prediction),
}
