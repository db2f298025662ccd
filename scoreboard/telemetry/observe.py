"""What the process tells its operator: log lines on stdout, and metrics for /metrics.

`configure` is called once by the command line; until then structlog's defaults hold. Every line carries the request id
of the task that wrote it, and goes through `redact` (redaction) last but one: no token, password or key leaves in a
log. Metrics are the constants below, in a registry of our own; whoever measures imports them. A log line that can't be
written, or not at once to a pipe, is lost and counted: never an error in the work it tells of, and never a wait.
"""

import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

import structlog
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
from structlog.typing import EventDict, Processor, WrappedLogger

from scoreboard.telemetry.pipes import writer_of
from scoreboard.telemetry.redaction import redact

# ---- metrics --------------------------------------------------------------------------------------------------------

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
COMMIT_BATCH_SIZE = _histogram("commit_batch_size", "Actions in one group commit", BATCHES)
COMMIT_SECONDS = _histogram("commit_seconds", "One group commit, both stores", SHORT_BUCKETS)
COMMIT_QUEUE = _gauge("commit_queue", "Actions that wait for a group commit")
LEADERBOARD_SECONDS = _histogram("leaderboard_query_seconds", "Reading a board from its store", SHORT_BUCKETS)
PUSH_LAG = _histogram("push_lag_seconds", "From hearing of a commit to the socket write", SHORT_BUCKETS)
HINTS_DROPPED = _counter("hints_dropped", "Pub/Sub messages that came faster than they could be handed on")
HINTS_UNCONFIRMED = _counter("hints_unconfirmed", "Pub/Sub messages of a board version that no read found")
BOARD_DOUBTS = _counter(
    "board_doubts", "Times that a board was found not to agree with PostgreSQL, by reason", "board", "reason"
)
LOST_TURNS = _counter("lost_turns", "Commits that were acknowledged and that PostgreSQL does not know any more")
TICK_INTERVAL = _gauge(
    "tick_interval_seconds", "Time between the last two fan-outs; above the setting when one took longer"
)
WEBSOCKET_CONNECTIONS = _gauge("websocket_connections", "Open WebSockets")
STREAM_CONNECTIONS = _gauge("stream_connections", "Open event streams")
LONG_POLLS = _gauge("long_polls", "Long polls that wait")
SLOW_READERS_CLOSED = _counter("slow_readers_closed", "Viewers closed because they were behind for too long")
CONNECTIONS_REFUSED = _counter("connections_refused", "Connections that were not taken, by reason", "reason")
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
    "store_connections_replaced", "Times that all connections to a store were given up", "store"
)
LOG_LINES_LOST = _counter("log_lines_lost", "Log lines that could not be written")

# Requests answered, at `handler + status // 100`: a list of numbers, since a Counter's lock would cost a request ten times
# as much. A stream counts as 2xx when it ends, a WebSocket as 1xx when it begins; what the front refuses by itself has
# a handler of its own.
FAST, DIRECT, ASGI, LIVE, MIDDLEWARE = HANDLERS = range(0, 50, 10)
HANDLER_KINDS = ("fast", "direct", "asgi", "live", "middleware")
answered = [0] * 50


class _Answered(Collector):
    """`answered`, when somebody asks."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily("scoreboard_http_requests", "Requests answered", labels=("handler", "status"))
        for handler, name in zip(HANDLERS, HANDLER_KINDS, strict=True):
            for digit in range(1, 6):
                if answered[handler + digit]:
                    family.add_metric((name, f"{digit}xx"), answered[handler + digit])
        yield family


REGISTRY.register(_Answered())


def render() -> bytes:
    """Everything in Prometheus' text format."""
    return generate_latest(REGISTRY)


# ---- log lines -------------------------------------------------------------------------------------------------------

# Set by the front for each request that a task answers; who answers without one names the request in the line itself.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")


def _request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if (request_id := REQUEST_ID.get()) and "request_id" not in event:
        event["request_id"] = request_id
    return event


class _Lines:
    """Writes finished lines to a stream. What a full pipe does not take is lost and counted; the next line that it
    takes says so first."""

    def __init__(self, stream: TextIO, lost_line: Callable[[int], str]) -> None:
        self._write, self._lost_line, self._lost = writer_of(stream), lost_line, 0

    def msg(self, line: str) -> None:
        try:
            if self._lost and self._write(self._lost_line(self._lost) + "\n"):
                self._lost = 0
            if not self._lost and self._write(line + "\n"):
                return
            self._lost += 1
        except (OSError, ValueError):  # the reader of our pipe is gone, or the disk is full: serving goes on
            pass
        LOG_LINES_LOST.inc()

    debug = info = warning = error = critical = msg


class _StandardLibrary(logging.Handler):
    """Passes what libraries log by `logging` through the same processors."""

    def __init__(self, render_line: Callable[[str, EventDict], str], lines: _Lines) -> None:
        super().__init__()
        self._render_line, self._lines = render_line, lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: EventDict = {"event": record.getMessage(), "logger": record.name}
            if record.exc_info:
                event["exc_info"] = record.exc_info
            self._lines.msg(self._render_line(record.levelname.lower(), event))
        except Exception:  # noqa: BLE001 – a library's bad format string must not end its caller
            LOG_LINES_LOST.inc()


_announce: Callable[[str], None] = print


def announce(text: str) -> None:
    """Tells people where the server is, whatever the level: as it stands on a console, as one event among JSON
    lines."""
    _announce(text)


def configure(level: str = "info", format: str = "auto", *, version: str = "", stream: TextIO | None = None) -> None:  # noqa: A002
    """Sends all logging to `stream` (stdout): `json`, `console`, or `auto`, which is console on a terminal. May be
    called again.

    Where the stream is closed (`>&-`) nothing is kept of it.
    """
    # open as long as the process
    stream = stream or sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    console = format == "console" or (format == "auto" and stream.isatty())
    processors: list[Processor] = [
        _request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        structlog.processors.format_exc_info,  # never with the values of local variables
        redact,
    ]
    if console:
        colors = stream.isatty()
        processors.append(
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        )
    else:
        processors.append(structlog.processors.JSONRenderer(ensure_ascii=False))

    def render_line(name: str, event: EventDict) -> str:
        result: Any = event
        for processor in processors:
            result = processor(None, name, result)
        return str(result)

    def lost_line(count: int) -> str:
        return render_line("warning", {"event": "log_lines_lost", "count": count, "request_id": ""})

    lines, number = _Lines(stream, lost_line), logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,  # loggers of modules follow a later `configure`
    )

    def announce_to_stream(text: str) -> None:
        lines.msg(text if console else render_line("info", {"event": "live", "message": " ".join(text.split())}))

    global _announce  # noqa: PLW0603 – as structlog's own configuration, the process has one
    _announce = announce_to_stream
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _StandardLibrary)]
    root.addHandler(_StandardLibrary(render_line, lines))
    root.setLevel(max(number, logging.INFO))  # libraries' debug lines would drown ours
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the demo's client: a line a request
    if version:
        BUILD_INFO.labels(version, platform.python_version()).set(1)
