"""The metrics of a process, in a registry of its own, and their text for `/metrics`.

A module that measures something imports the constant that it needs. Requests are counted in plain lists, here and in
`request_times`, because a Prometheus counter takes a lock: `http.connection` writes them once a request.
"""

import platform
from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody reads
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # CPU, memory, open descriptors
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# seconds, from a memory read to a time-out
SHORT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # actions; 256 is the committer's largest batch


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(f"scoreboard_{name}", text, labels, registry=REGISTRY)


def _gauge(name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"scoreboard_{name}", text, labels, registry=REGISTRY)


def _histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"scoreboard_{name}", text, buckets=buckets, registry=REGISTRY)


BUILD_INFO = _gauge("build_info", "Always 1; the labels say what runs", "version", "python")
SCORE_UPDATES = _counter("score_updates", "Actions submitted, by what became of them", "result")
OUTSIDE_TOKENS = _counter(
    "outside_tokens", "Tokens of outside issuers, by issuer and by why they were refused or not", "issuer", "outcome"
)
OUTSIDE_LOG_INS = _counter(
    "outside_log_ins", "Browsers that came back from an outside issuer, and what became of it", "issuer", "outcome"
)
COMMIT_BATCH_SIZE = _histogram("commit_batch_size", "Actions in one group commit", BATCHES)
COMMIT_SECONDS = _histogram("commit_seconds", "One group commit, both stores", SHORT_BUCKETS)
COMMIT_QUEUE = _gauge("commit_queue", "Actions that wait for a group commit")
LEADERBOARD_SECONDS = _histogram("leaderboard_query_seconds", "Reading a board from its store", SHORT_BUCKETS)
PUSH_LAG = _histogram("push_lag_seconds", "From receiving a commit's message to the socket write", SHORT_BUCKETS)
HINTS_DROPPED = _counter("hints_dropped", "Pub/Sub messages dropped because they came faster than they were dispatched")
HINTS_UNCONFIRMED = _counter("hints_unconfirmed", "Pub/Sub messages of a board version that no read found")
BOARD_STALE_REASONS = _counter(
    "board_stale_reasons", "Times that a board was found not to agree with PostgreSQL, by reason", "board", "reason"
)
LOST_BATCHES = _counter("lost_batches", "Commits that were acknowledged and that PostgreSQL does not know any more")
TICK_INTERVAL = _gauge(
    "tick_interval_seconds", "Time between the last two fan-outs; above the setting when one took longer"
)
WEBSOCKET_CONNECTIONS = _gauge("websocket_connections", "Open WebSockets")
STREAM_CONNECTIONS = _gauge("stream_connections", "Open event streams")
LONG_POLLS = _gauge("long_polls", "Long polls that wait")
SLOW_READERS_CLOSED = _counter("slow_readers_closed", "Viewers closed because they were behind for too long")
CONNECTIONS_REFUSED = _counter("connections_refused", "Connections that were not accepted, by reason", "reason")
CONNECTIONS_EVICTED = _counter(
    "connections_evicted", "Connections closed while they waited for their client, as another needed the place"
)
TASK_RESTARTS = _counter("task_restarts", "Background tasks started again after a crash", "task")
ASYNCIO_EXCEPTIONS = _counter("asyncio_exceptions", "Exceptions that only asyncio's handler saw")
BREAKER_STATE = _gauge("breaker_state", "Circuit breaker: 0 closed, 1 half open, 2 open", "store")
STORE_CONDITION = _gauge(
    "store_condition", "1 for the condition that a store is in, 0 for the others", "store", "condition"
)
CONNECTIONS_REPLACED = _counter(
    "store_connections_replaced", "Times that all connections to a store were replaced", "store"
)
ANOMALIES = _counter("anomalies", "Suspicious patterns that were flagged, by rule", "rule")
ANOMALY_LAG = _gauge("anomaly_lag_seconds", "Age of the oldest action that the anomaly rules have not looked at yet")
OUTGOING_MESSAGES = _counter(
    "outgoing_messages", "Messages to other servers: added, dropped, sent, failed, dead", "channel", "result"
)
LOG_SIZE = _gauge("log_leaves", "Leaves of the transparency log")
LOG_WAITING_SECONDS = _gauge("log_waiting_seconds", "How long the oldest record waits to be sealed into the log")
WEBHOOK_ANSWERS = _counter(
    "webhook_answers",
    "Actions about which another server was asked, by what it said: accepted, refused, failed",
    "outcome",
)
LOG_LINES_LOST = _counter("log_lines_lost", "Log lines that could not be written")

# Requests answered, at the index `handler + status // 100`: a list of numbers, as the lock of a Counter would cost ten
# times as much. A stream counts as 2xx when it ends, a WebSocket as 1xx when it begins. MIDDLEWARE: no handler was
# called.
FAST, DIRECT, ASGI, LIVE, MIDDLEWARE = HANDLERS = range(0, 50, 10)
HANDLER_KINDS = ("fast", "direct", "asgi", "live", "middleware")
request_counts = [0] * 50


class _RequestCounts(Collector):
    """Makes the counter of `request_counts` when /metrics is read."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily("scoreboard_http_requests", "Requests answered", labels=("handler", "status"))
        for handler, name in zip(HANDLERS, HANDLER_KINDS, strict=True):
            for digit in range(1, 6):
                if request_counts[handler + digit]:
                    family.add_metric((name, f"{digit}xx"), request_counts[handler + digit])
        yield family


REGISTRY.register(_RequestCounts())


def set_build_info(version: str) -> None:
    """Names the version that runs."""
    BUILD_INFO.labels(version, platform.python_version()).set(1)


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
