"""Log lines: what an operator sees, and what nobody may see."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import trio

from scoreboard.telemetry import logging as log_lines
from scoreboard.telemetry import metrics


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where log lines go during a test; logging is as before afterwards."""
    root, lines = logging.getLogger(), io.StringIO()
    before = list(root.handlers), root.level
    log_lines.configure("info", "json", stream=lines)
    yield lines
    root.handlers, level = before
    root.setLevel(level)
    structlog.reset_defaults()


def written(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json(stream: io.StringIO) -> None:
    """Each line is one JSON object with time, level and the fields as they were given; lines below the level are not
    written."""
    log = structlog.get_logger()
    log.debug("not shown")
    log.info("listening", port=8000, hosts=["a"], name="Zoë")
    (line,) = written(stream)
    assert line["timestamp"].endswith("Z")
    assert line | {"timestamp": ""} == {
        "event": "listening",
        "level": "info",
        "port": 8000,
        "hosts": ["a"],
        "name": "Zoë",
        "timestamp": "",
    }


def test_libraries_log_through_the_same_processors(stream: io.StringIO) -> None:
    """What a library logs by `logging` is the same JSON, secrets taken out; a line that doesn't fit its own format is
    lost."""
    logging.getLogger("hypercorn.error").warning("GET %s", "/api?token=abc123")
    (handler,) = (handler for handler in logging.getLogger().handlers if isinstance(handler, log_lines._LoggingHandler))
    handler.emit(logging.LogRecord("broken", logging.ERROR, "", 0, "%d", ("no number",), None))
    (line,) = written(stream)
    assert (line["logger"], line["level"], line["event"]) == ("hypercorn.error", "warning", "GET /api?token=[redacted]")


async def test_every_line_of_a_request_has_its_id(stream: io.StringIO) -> None:
    """The request id follows a task and its children, and two requests don't mix."""

    async def request(name: str) -> None:
        log_lines.REQUEST_ID.set(name)
        await trio.lowlevel.checkpoint()
        structlog.get_logger().info("served", name=name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child, name)

    async def child(name: str) -> None:
        logging.getLogger("library").info("child of %s", name)

    async with trio.open_nursery() as nursery:
        for name in ("one", "two"):
            nursery.start_soon(request, name)
    structlog.get_logger().info("outside")
    lines = written(stream)
    assert sorted(line["request_id"] for line in lines[:-1]) == ["one", "one", "two", "two"]
    assert all(line["request_id"] in (line.get("name"), line["event"][-3:]) for line in lines[:-1])
    assert "request_id" not in lines[-1]


JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    "fields",
    [
        {"url": "/api/v1/scores/live?token=hidden&x=1"},
        {"url": "/live?x=1&TOKEN=hidden"},
        {"query": b"token=hidden"},
        {"token": "hidden"},
        {"password": "hidden"},
        {"actionSecret": "hidden"},
        {"master_keys": {"1": "token=hidden"}},
        {"headers": [("a", {"Authorization": "hidden"})]},
        {"header": "Authorization: Bearer hidden.hidden-hidden"},
        {"body": '{"refreshToken": "hidden", "a": 1}'},
        {"why": "could not connect to postgresql://u:hidden@db/x"},
        {"why": "could not connect to redis://:hidden@cache/0"},
        {"why": f"bad {JWT}"},
        {"error": ValueError("?token=hidden")},
        {"deep": [[[[[[[["?token=hidden"]]]]]]]]},
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_never_appear(stream: io.StringIO, fields: dict[str, Any], form: str) -> None:
    """Neither as a field, nor in a text, a URL, a header, a nested value, nor in a traceback."""
    log_lines.configure("info", form, stream=stream)
    log = structlog.get_logger()
    log.info("event", **fields)
    try:
        raise ValueError(str(fields))
    except ValueError:
        log.exception("failed")
    log.info(str(fields))
    assert len(stream.getvalue()) > 100
    assert "hidden" not in stream.getvalue()
    assert JWT not in stream.getvalue()


def test_a_traceback_shows_no_values(stream: io.StringIO) -> None:
    """A traceback has lines of code, not what variables held."""
    held = str(123456789 * 1000)
    log_lines.configure("info", "auto", stream=stream)
    try:
        raise ValueError(len(held))
    except ValueError:
        structlog.get_logger().exception("failed")
    assert "ValueError: 12" in stream.getvalue()
    assert held not in stream.getvalue()


def test_auto_is_console_on_a_terminal(stream: io.StringIO) -> None:
    """On a terminal a line is for people, elsewhere for machines."""
    terminal = Terminal()
    log_lines.configure("info", "auto", stream=terminal)
    structlog.get_logger().info("listening")
    assert "listening" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    log_lines.configure("info", "auto", stream=stream)
    structlog.get_logger().info("listening")
    assert written(stream)[0]["event"] == "listening"


def test_a_line_that_cannot_be_written_is_lost(stream: io.StringIO) -> None:
    """A closed stdout ends no request: the line is counted and forgotten."""
    lost = metrics.REGISTRY.get_sample_value("scoreboard_log_lines_lost_total") or 0
    stream.close()
    structlog.get_logger().info("nobody hears")
    assert metrics.REGISTRY.get_sample_value("scoreboard_log_lines_lost_total") == lost + 1
    log_lines.configure("info", "json", stream=io.StringIO())
