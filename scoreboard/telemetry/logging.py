"""Log lines on stdout, as JSON or for a console.

1. The command line calls `configure` once. Until then structlog's defaults hold.
2. Every line carries the request id of the task that wrote it (`REQUEST_ID`).
3. Every line passes through `redaction.redact` before it is rendered. No token, password or key leaves in a log.
4. A line that cannot be written, or that a full pipe has no room for, is lost and counted (`LOG_LINES_LOST`). The code
   that logged it never waits and never fails because of it.

The `event` of a line is a name in snake_case and in the past tense (`server_started`); what varies is in its fields.
"""

import logging
import os
import sys
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from scoreboard.telemetry.metrics import LOG_LINES_LOST
from scoreboard.telemetry.pipes import writer_of
from scoreboard.telemetry.redaction import redact

# Set by http.connection for each request that a task answers. Code that runs without one names the request in its line.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")


def _request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if (request_id := REQUEST_ID.get()) and "request_id" not in event:
        event["request_id"] = request_id
    return event


class _LineWriter:
    """Writes finished lines to a stream. A line for which a full pipe has no room is lost and counted. Once there is
    room again, a line with the number of lost lines comes first."""

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


class _LoggingHandler(logging.Handler):
    """Passes what libraries log by `logging` through the same processors."""

    def __init__(self, render_line: Callable[[str, EventDict], str], lines: _LineWriter) -> None:
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
    """Prints a text for people (where the server can be reached), whatever the level: as it is on a console, as one
    event among JSON lines."""
    _announce(text)


def configure(level: str = "info", format: str = "auto", *, stream: TextIO | None = None) -> None:  # noqa: A002
    """Sends all logging to `stream` (stdout): `json`, `console`, or `auto`, which is console on a terminal. May be
    called again.

    If stdout is closed (`>&-`), the lines go nowhere.
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

    lines, number = _LineWriter(stream, lost_line), logging.getLevelNamesMapping()[level.upper()]
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
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _LoggingHandler)]
    root.addHandler(_LoggingHandler(render_line, lines))
    root.setLevel(max(number, logging.INFO))  # libraries' debug lines would drown ours
    logging.getLogger("httpx").setLevel(logging.WARNING)  # the demo's client: a line a request
