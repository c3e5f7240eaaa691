"""What Prometheus is told, in a registry of our own.

Requests are measured here as clients feel them; the engine's own counts are read when asked.
"""

import time
from collections.abc import Iterable
from types import TracebackType

from aphrodite_engine.async_engine import AsyncEngine
from aphrodite_engine.sampling.params import SamplingParams
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
_LABELS = ("model_name", "engine")


class Metrics:
    """Counters and histograms of one served model."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._registry = CollectorRegistry()
        self._values = (engine.info.name, "0")
        self._registry.register(EngineCollector(engine, self._values))
        self.first_token = self._histogram("time_to_first_token_seconds", "Until the first token.")
        self.gap = self._histogram("inter_token_latency_seconds", "Between tokens.")
        self.whole = self._histogram("e2e_request_latency_seconds", "Until the last token.")
        self.per_token = self._histogram(
            "request_time_per_output_token_seconds", "Mean between tokens, of one request."
        )
        self.prompt = self._histogram("request_prompt_tokens", "Tokens of prompts.", _COUNTS)
        self.output = self._histogram(
            "request_generation_tokens", "Tokens of completions.", _COUNTS
        )
        self.choices = self._histogram("request_params_n", "The n of requests.", _COUNTS)
        self.limit = self._histogram(
            "request_params_max_tokens", "The max_tokens of requests.", _COUNTS
        )
        self._success = Counter(
            "aphrodite:request_success",
            "Completions that ended.",
            (*_LABELS, "finished_reason"),
            registry=self._registry,
        )

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        made = Histogram(
            f"aphrodite:{name}", text, _LABELS, buckets=buckets, registry=self._registry
        )
        return made.labels(*self._values)

    def success(self, reason: str) -> None:
        """One completion ended."""
        self._success.labels(*self._values, reason).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


class EngineCollector(Collector):
    """The engine's own counts, as of now."""

    def __init__(self, engine: AsyncEngine, values: tuple[str, str]) -> None:
        self._engine = engine
        self._values = values

    def collect(self) -> Iterable[Metric]:
        """All gauges and counters of the engine."""
        stats = self._engine.stats
        used = stats.kv_blocks - stats.kv_blocks_free
        yield self._gauge("num_requests_running", "Completions that run.", stats.running)
        yield self._gauge("num_requests_waiting", "Completions that wait.", stats.waiting)
        share = used / stats.kv_blocks if stats.kv_blocks else 0.0
        yield self._gauge("kv_cache_usage_perc", "Share of KV blocks in use; 1: all.", share)
        prompt = stats.prompt_tokens + stats.prefix_hits
        yield self._counter("prompt_tokens", "Prompt tokens, cached ones included.", prompt)
        yield self._counter("prompt_tokens_cached", "Prompt tokens reused.", stats.prefix_hits)
        yield self._counter("generation_tokens", "Tokens made.", stats.generation_tokens)
        yield self._counter("num_preemptions", "Preemptions.", stats.preemptions)
        queries, hits = stats.prefix_queries, stats.prefix_hits
        yield self._counter("prefix_cache_queries", "Tokens looked up.", queries)
        yield self._counter("prefix_cache_hits", "Tokens found.", hits)
        yield self._cache_config()

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"aphrodite:{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"aphrodite:{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _cache_config(self) -> Metric:
        info = self._engine.info
        facts = {"block_size": str(info.block_size), "num_gpu_blocks": str(info.num_blocks)}
        family = GaugeMetricFamily(
            "aphrodite:cache_config_info", "Set-up of the KV cache.", labels=(*_LABELS, *facts)
        )
        family.add_metric((*self._values, *facts.values()), 1)
        return family


class Meter:
    """Measures one request: from its making to the end of the `with` block."""

    def __init__(self, metrics: Metrics, params: SamplingParams, prompt_tokens: int) -> None:
        self._metrics = metrics
        self._prompt_tokens = prompt_tokens
        self._params = params
        self._start = time.perf_counter()
        self._first = 0.0
        self._last: dict[int, float] = {}
        self._count = 0

    def __enter__(self) -> None:
        """Nothing: the clock runs since the request came."""

    def tokens(self, choice: int, count: int) -> None:
        """Tokens of a choice came."""
        now = time.perf_counter()
        if self._count == 0:
            self._first = now
            self._metrics.first_token.observe(now - self._start)
        before = self._last.get(choice)
        if before is not None:
            self._metrics.gap.observe(now - before)
        self._last[choice] = now
        self._count += count

    def finished(self, reason: str) -> None:
        """One of its completions ended."""
        self._metrics.success(reason)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The request is over; only whole ones are counted."""
        if kind is not None:
            return
        metrics = self._metrics
        metrics.whole.observe(time.perf_counter() - self._start)
        metrics.prompt.observe(self._prompt_tokens)
        metrics.output.observe(self._count)
        metrics.choices.observe(self._params.n)
        if self._params.max_tokens is not None:
            metrics.limit.observe(self._params.max_tokens)
        following = self._count - len(self._last)
        if following > 0:
            busy = sum(last - self._first for last in self._last.values())
            metrics.per_token.observe(busy / following)
